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
		empty, err := w.isDrained(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("look whether the burst is over: %w", err)
		case empty:
			w.log.Info("queues are drained, the burst is over")
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// isDrained asks the feeders first: what they have handed on is in a queue by the time the queues are asked.
func (w *Worker) isDrained(ctx context.Context) (bool, error) {
	for _, f := range w.feeders {
		if empty, err := f.Drained(ctx); err != nil || !empty {
			return false, err
		}
	}
	for _, queue := range w.cfg.QueueNames() {
		b, err := w.fleet.Backlog(ctx, queue)
		if err != nil {
			return false, err
		}
		if b.Active > 0 || !b.Paused && b.Pending+b.Retry > 0 {
			return false, nil
		}
	}
	return true, nil
}
