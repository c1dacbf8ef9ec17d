package worker

import (
	"context"
	"fmt"
	"time"
)

// burstCheck is how often a burst looks whether it is over.
const burstCheck = 200 * time.Millisecond

// untilDrained returns once the feeders and the queues are drained, which ends the worker.
func (w *Worker) untilDrained(ctx context.Context) error {
	ticker := time.NewTicker(burstCheck)
	defer ticker.Stop()
	for {
		empty, left, err := w.isDrained(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("look whether the burst is over: %w", err)
		case empty:
			for _, p := range left {
				w.log.Warn("the burst leaves jobs in a paused queue", "queue", p.queue, "jobs", p.jobs)
			}
			w.log.Info("nothing is left to run, the burst is over")
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// pausedJobs are those that wait in a paused queue.
type pausedJobs struct {
	queue string
	jobs  int64
}

// isDrained asks the feeders first: what they have handed on is in a queue by the time the queues are asked. It tells what paused
// queues hold.
func (w *Worker) isDrained(ctx context.Context) (bool, []pausedJobs, error) {
	for _, f := range w.feeders {
		if empty, err := f.Drained(ctx); err != nil || !empty {
			return false, nil, err
		}
	}
	var left []pausedJobs
	for _, queue := range w.cfg.QueueNames() {
		b, err := w.fleet.Backlog(ctx, queue)
		if err != nil {
			return false, nil, err
		}
		waiting := b.Pending + b.Retry
		if b.Active > 0 || !b.Paused && waiting > 0 {
			return false, nil, nil
		}
		if waiting > 0 {
			left = append(left, pausedJobs{queue, waiting})
		}
	}
	return true, left, nil
}
