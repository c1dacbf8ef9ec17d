package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/internal/cli"
	"github.com/bellhop-dev/bellhop/job"
)

// await waits until the job has ended and prints its result; what it says on the way goes to stderr.
func (e *enqueuer) await(ctx context.Context, info *job.Info) error {
	asked := ctx
	ctx, cancel := context.WithTimeout(ctx, e.wait)
	defer cancel()
	fmt.Fprintf(e.stderr, "job %s in queue %s, waiting for its end\n", info.ID, info.Queue)
	last, err := e.fleet.Await(ctx, info.Queue, info.ID)
	switch {
	case err == nil:
		return e.printEnd(last)
	case errors.Is(err, fleet.ErrNoJob):
		return e.printEnd(fleet.Job{ID: info.ID, Task: info.Task, Queue: info.Queue, State: "gone"})
	case ctx.Err() == nil:
		return err
	case asked.Err() != nil:
		return fmt.Errorf("job %s: stopped waiting, it %s", info.ID, standing(last))
	}
	return e.tellUnended(asked, last)
}

// standing says where a job stands that has not ended: "it is active", "it waits for its retry after 2 failures".
func standing(j fleet.Job) string {
	at := "is " + j.State
	if j.State == "retry" {
		at = "waits for its retry"
	}
	switch {
	case j.LastError == "":
		return at
	case j.Retried == 0 && j.State == "retry":
		return "is put off: " + j.LastError
	case j.Retried == 0:
		return at + ", put off: " + j.LastError
	}
	return fmt.Sprintf("%s after %s, the last: %s", at, count(j.Retried, "failure"), j.LastError)
}

// tellUnended says where the job stands when the time is over, and what may keep it there. It always fails.
func (e *enqueuer) tellUnended(ctx context.Context, j fleet.Job) error {
	hint := e.hint(ctx, j)
	if e.json {
		if err := e.printJSON(struct {
			fleet.Job
			Hint string `json:"hint,omitempty"`
		}{j, hint}); err != nil {
			return err
		}
	}
	if hint != "" {
		hint = "; " + hint
	}
	return fmt.Errorf("job %s has not ended within %v: it %s%s", j.ID, e.wait, standing(j), hint)
}

// hint tells what keeps a job waiting that does not run.
func (e *enqueuer) hint(ctx context.Context, j fleet.Job) string {
	ctx, cancel := context.WithTimeout(ctx, connectWithin)
	defer cancel()
	if b, err := e.fleet.Backlog(ctx, j.Queue); err == nil && b.Paused {
		return "queue " + j.Queue + " is paused"
	}
	if len(e.unserved(ctx, j.Queue)) > 0 {
		return "no bellhop worker serves queue " + j.Queue
	}
	return ""
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
	case j.Completed() && j.ResultCut:
		fmt.Fprintf(e.stderr, "job %s is done; its result is too long for a job that is not kept: give its task a retention\n", j.ID)
	case j.Completed():
		fmt.Fprintf(e.stderr, "job %s is done\n", j.ID)
	default:
		fmt.Fprintf(e.stderr, "job %s is no longer in Redis: it is done and not kept, or was deleted\n", j.ID)
	}
	return nil
}
