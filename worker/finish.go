package worker

import (
	"context"
	"errors"
	"runtime"

	"github.com/bellhop-dev/bellhop/queue"
)

// finish writes the ends of a queue's attempts: one call is under way, and what ends meanwhile goes together into the next.
func (p *pool) finish(ctx context.Context, l *lane) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.ended:
			runtime.Gosched() // what ends now goes into the same call
		}
		for batch := p.takeEnds(l); len(batch) > 0; batch = p.takeEnds(l) {
			ends := make([]queue.End, len(batch))
			for i := range batch {
				ends[i] = batch[i].end
			}
			p.answered(batch, p.queue.Finish(ctx, ends...))
		}
	}
}

func (p *pool) takeEnds(l *lane) []ending {
	p.mu.Lock()
	defer p.mu.Unlock()
	ends := l.ends
	l.ends = nil
	return ends
}

// answered counts what Redis has confirmed.
func (p *pool) answered(batch []ending, errs []error) {
	for i, err := range errs {
		held := batch[i].end.Job()
		switch {
		case errors.Is(err, queue.ErrNotOwner):
			p.log.Warn("the end of an attempt was refused: another worker has the job", "job", held.ID, "queue", held.Queue)
		case err != nil:
			p.log.Error("the end of an attempt was not written: the job runs again once its lease is over",
				"job", held.ID, "queue", held.Queue, "err", err)
		case batch[i].died:
			p.w.dead.Add(1)
		}
	}
	p.mu.Lock()
	p.unanswered -= len(batch)
	stopping := p.stopping
	p.mu.Unlock()
	notify(p.wake)
	if stopping {
		notify(p.changed)
	}
}
