package queue

import (
	"context"
	_ "embed"
	"errors"
	"fmt"

	"github.com/bellhop-dev/bellhop/internal/wire"
)

//go:embed remove.lua
var removeSource string

var removeScript = newScript(removeSource, awaitedSource)

var (
	// ErrNoJob tells that there is no such job.
	ErrNoJob = errors.New("no such job")
	// ErrRuns tells that a worker has the job, or is aggregating it.
	ErrRuns = errors.New("the job runs")
)

// Remove deletes a job that does not run, in whatever state it is, and releases its lock. It fails with ErrRuns or ErrNoJob.
func (c *Client) Remove(ctx context.Context, ref Ref) error { return c.remove(ctx, ref, "") }

// RemoveAside deletes a job that was set aside because its message can't be decoded, and none in another state. It fails with ErrNoJob.
func (c *Client) RemoveAside(ctx context.Context, ref Ref) error {
	return c.remove(ctx, ref, stateAside)
}

const stateAside = "undecodable"

func (c *Client) remove(ctx context.Context, ref Ref, only string) error {
	q := ref.Queue
	keys := []string{
		wire.JobKey(q, ref.ID), wire.PendingKey(q), wire.ScheduledKey(q), wire.RetryKey(q), wire.ArchivedKey(q), wire.CompletedKey(q),
		wire.AllGroups(q), wire.UndecodableKey(q), wire.DueKey(q), wire.AwaitedKey(q),
	}
	n, err := c.do(ctx, removeScript, keys, ref.ID, wire.JobPrefix(q), wire.GroupKey(q, ""), only).Int()
	switch {
	case err != nil:
		return fmt.Errorf("remove job %s from queue %s: %w", ref.ID, q, err)
	case n == 0:
		return fmt.Errorf("remove job %s from queue %s: %w", ref.ID, q, ErrNoJob)
	case n < 0:
		return fmt.Errorf("remove job %s from queue %s: %w", ref.ID, q, ErrRuns)
	}
	return nil
}
