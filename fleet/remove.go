package fleet

import (
	"context"
	"errors"
	"fmt"

	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

// ErrRuns tells that a job can't be removed, for a worker has it: see Cancel.
var ErrRuns = queue.ErrRuns

// Remove deletes a job that waits or has ended, with its lock; those who await it learn that it is gone. It fails with ErrRuns or ErrNoJob.
func (c *Client) Remove(ctx context.Context, queueName, id string) error {
	err := c.queue.Remove(ctx, queue.Ref{Queue: queueName, ID: id})
	if errors.Is(err, queue.ErrNoJob) {
		return noJob(queueName, id)
	}
	return err
}

// Cancel asks the worker that runs the job to end it: its context is cancelled, and it is not tried again. Nothing tells whether a
// worker heard it.
func (c *Client) Cancel(ctx context.Context, id string) error {
	if err := c.rdb.Publish(ctx, wire.CancelChannel, id).Err(); err != nil {
		return fmt.Errorf("cancel job %s: %w", id, err)
	}
	return nil
}
