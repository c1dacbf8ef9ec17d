package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/internal/cli"
	"github.com/bellhop-dev/bellhop/job"
)

// await looks until the job has ended and prints its result; what it says on the way goes to stderr.
func (e *enqueuer) await(ctx context.Context, info *job.Info) error {
	ctx, cancel := context.WithTimeout(ctx, e.wait)
	defer cancel()
	fmt.Fprintf(e.stderr, "job %s in queue %s, waiting for its end\n", info.ID, info.Queue)
	var last fleet.Job
	for pause := firstLook; ; pause = min(pause*3/2, longestLook) {
		found, err := e.fleet.Job(ctx, info.Queue, info.ID)
		switch {
		case errors.Is(err, fleet.ErrNoJob):
			found = fleet.Job{ID: info.ID, Task: info.Task, Queue: info.Queue, State: "gone"}
			return e.printEnd(found)
		case err != nil:
			return err
		case found.Dead(), found.Completed():
			return e.printEnd(found)
		}
		last = found
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("job %s has not ended within %v: it is %s%s", info.ID, e.wait, last.State, because(last))
		}
	}
}

// Pauses between looks: a quick job is seen quickly, a long one costs little.
const (
	firstLook   = 5 * time.Millisecond
	longestLook = 250 * time.Millisecond
)

func because(j fleet.Job) string {
	if j.LastError == "" {
		return ""
	}
	return fmt.Sprintf(" after %d failures, the last: %s", j.Retried, j.LastError)
}

// printEnd prints the result on stdout, and fails if the job did.
func (e *enqueuer) printEnd(j fleet.Job) error {
	if e.json {
		if err := e.printJSON(struct {
			fleet.Job
			Result any `json:"result,omitempty"`
		}{j, jsonOrText(j.Result)}); err != nil {
			return err
		}
	} else if len(j.Result) > 0 {
		fmt.Fprintf(e.stdout, "%s\n", j.Result)
	}
	switch {
	case j.Dead():
		fmt.Fprintf(e.stderr, "job %s failed for good: %s\n", j.ID, j.LastError)
		return cli.SilentError
	case j.Completed():
		fmt.Fprintf(e.stderr, "job %s is done\n", j.ID)
	default:
		fmt.Fprintf(e.stderr, "job %s is no longer in Redis: it is done and not kept, or was deleted\n", j.ID)
	}
	return nil
}
