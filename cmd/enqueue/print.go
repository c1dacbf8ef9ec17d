package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

func (e *enqueuer) printJSON(v any) error {
	return json.NewEncoder(e.stdout).Encode(v)
}

// jsonOrText shows bytes as the JSON that they are, else as text.
func jsonOrText(data []byte) any {
	switch {
	case len(data) == 0:
		return nil
	case json.Valid(data):
		return json.RawMessage(data)
	}
	return string(data)
}

func (e *enqueuer) printJob(info *job.Info) error {
	if e.json {
		return e.printJSON(info)
	}
	state := string(info.State)
	switch {
	case state == stateDuplicate:
		state = "a duplicate, it was enqueued before"
	case !info.At.IsZero():
		state += ", starts at " + info.At.Format(time.RFC3339)
	}
	_, err := fmt.Fprintf(e.stdout, "job %s: %s in queue %s is %s\n", info.ID, info.Task, info.Queue, state)
	return err
}

// stateDuplicate is what the command gives as the state of a job that was not stored, as one stands in its place.
const stateDuplicate = "duplicate"

func (e *enqueuer) printEvent(event *events.Event, p events.Published) error {
	if e.json {
		return e.printJSON(map[string]any{
			"id": event.ID, "type": event.Type, "source": event.Source, "stream_id": p.StreamID, "duplicate": p.Duplicate,
		})
	}
	state := "published"
	if p.Duplicate {
		state = "a duplicate, it was published before"
	}
	_, err := fmt.Fprintf(e.stdout, "event %s: %s from %s is %s as %s\n", event.ID, event.Type, event.Source, state, p.StreamID)
	return err
}

// knownTasks are those that workers have registered and the built-in ones.
func (e *enqueuer) knownTasks(ctx context.Context) ([]fleet.Task, error) {
	known, err := e.fleet.Tasks(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range tasks.BuiltIn() {
		if !slices.ContainsFunc(known, func(t fleet.Task) bool { return t.Name == d.Name }) {
			known = append(known, fleet.Task{Definition: d})
		}
	}
	slices.SortFunc(known, func(a, b fleet.Task) int { return strings.Compare(a.Name, b.Name) })
	return known, nil
}

// listed is a known task, and how many live workers have a handler for it and serve its queue.
type listed struct {
	fleet.Task
	Workers int `json:"workers"`
}

func (e *enqueuer) listTasks(ctx context.Context) error {
	known, err := e.knownTasks(ctx)
	if err != nil {
		return err
	}
	workers, err := e.fleet.Workers(ctx)
	if err != nil {
		return err
	}
	list := make([]listed, len(known))
	for i, t := range known {
		list[i].Task = t
		for _, w := range workers {
			if slices.Contains(w.Tasks, t.Name) && w.Queues[t.Defaults.Queue] > 0 {
				list[i].Workers++
			}
		}
	}
	if e.json {
		return e.printJSON(list)
	}
	table := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "TASK\tQUEUE\tRETRIES\tTIMEOUT\tPAYLOAD (* must be given)\tLIVE WORKERS\tREGISTERED")
	for _, t := range list {
		live := strconv.Itoa(t.Workers)
		if t.Workers == 0 {
			live = "none"
		}
		registered := "built in"
		if !t.Written.IsZero() {
			registered = t.Written.Format(time.DateTime) + " by " + t.Build
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%v\t%s\t%s\t%s\n", t.Name, t.Defaults.Queue, t.Defaults.MaxRetry, t.Defaults.Timeout, fields(t.Schema), live, registered)
	}
	return table.Flush()
}

func fields(s job.Schema) string {
	names := slices.Clone(s.Fields())
	for i, name := range names {
		if slices.Contains(s.Required(), name) {
			names[i] += "*"
		}
	}
	if len(names) == 0 {
		return "any JSON"
	}
	return strings.Join(names, ", ")
}
