package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/internal/cli"
	"github.com/bellhop-dev/bellhop/triggers"
)

// deadPage is how many dead matches are read at once.
const deadPage = 100

// listDeadMatches shows the events that a trigger failed on and that wait for somebody.
func (e *enqueuer) listDeadMatches(ctx context.Context) error {
	if e.json {
		return e.printDeadMatches(ctx)
	}
	table := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tEVENT\tAT\tERROR")
	for cursor := ""; ; {
		matches, next, err := e.events.DeadMatches(ctx, cursor, deadPage)
		if err != nil {
			return err
		}
		for _, m := range matches {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", m.ID, m.Event.Type, m.At.Format(time.DateTime), m.Error)
		}
		if cursor = next; cursor == "" {
			return table.Flush()
		}
	}
}

// printDeadMatches writes one array, page by page: each match holds its event, all of them may be more than fits into memory.
func (e *enqueuer) printDeadMatches(ctx context.Context) error {
	out := bufio.NewWriter(e.stdout)
	separator := "["
	for cursor := ""; ; {
		matches, next, err := e.events.DeadMatches(ctx, cursor, deadPage)
		if err != nil {
			return err
		}
		for _, m := range matches {
			text, err := json.Marshal(m)
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "%s%s", separator, text)
			separator = ",\n"
		}
		if cursor = next; cursor == "" {
			break
		}
	}
	if separator == "[" {
		fmt.Fprint(out, separator)
	}
	fmt.Fprintln(out, "]")
	return out.Flush()
}

// replayDeadMatch runs the trigger, as the configured files and the store have it now, on the kept event again.
func (e *enqueuer) replayDeadMatch(ctx context.Context) error {
	catalog := fleet.NewCatalog(e.fleet, nil)
	if err := catalog.Refresh(ctx); err != nil {
		return err
	}
	store, err := triggers.NewStore(e.rdb, catalog, e.cfg.Triggers.Config)
	if err != nil {
		return cli.UsageError{Err: err}
	}
	rules, err := triggers.NewRules(ctx, triggers.Sources{Files: e.cfg.Triggers.Files, Store: store}, catalog, e.cfg.Triggers.Config, nil)
	switch {
	case errors.Is(err, triggers.ErrStoreAway):
		return err
	case err != nil:
		return cli.UsageError{Err: err}
	case len(rules.Set().Triggers()) == 0:
		return cli.Usagef("a replay needs the triggers as they are now: name their file with --triggers, or in the configuration")
	}
	runner := triggers.NewRunner(rules.Set(), triggers.Deps{Jobs: e.jobs, Dead: e.events, Fired: e.jobs})
	replayed, err := runner.Replay(ctx, e.replay)
	switch {
	case errors.Is(err, events.ErrNotFound):
		return cli.Usagef("there is no dead match %q: --dead-matches lists them", e.replay)
	case err != nil:
		return err
	case e.json:
		return e.printJSON(map[string]any{"matched": replayed.Matched, "job": replayed.JobID, "duplicate": replayed.Duplicate})
	case !replayed.Matched:
		fmt.Fprintln(e.stdout, "the trigger does not match the event any more, the dead match is removed")
	case replayed.Duplicate:
		fmt.Fprintf(e.stdout, "the trigger had fired already, as job %s\n", replayed.JobID)
	default:
		fmt.Fprintf(e.stdout, "job %s\n", replayed.JobID)
	}
	return nil
}
