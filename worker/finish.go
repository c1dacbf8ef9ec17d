package worker

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/bellhop-dev/bellhop/queue"
)

const (
	// gatherBelow is a batch that is worth waiting for more: much of a call's cost does not depend on how many ends it has.
	gatherBelow = 64

	// rideFrom is a number of ends that a fetch takes along whenever it goes out.
	rideFrom = 16

	// spares are as many batches as may be under way at once, with fetches and beside them.
	spares = 4

	// gatherTime is how long a busy queue's ends wait for others. Their slots are free already.
	gatherTime = 500 * time.Microsecond
)

// finish writes the ends of a queue's attempts that no fetch takes along: one call is under way, and what ends meanwhile goes together into
// the next. An end that comes alone is written at once.
func (p *pool) finish(ctx context.Context, l *lane) {
	gather := time.NewTimer(gatherTime)
	defer gather.Stop()
	last := 0 // the size of the last batch
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.ended:
			runtime.Gosched() // what ends now goes into the same call
		}
		if last > 1 && last < gatherBelow {
			gather.Reset(gatherTime)
			<-gather.C
		}
		p.mu.Lock()
		batch := l.takeEnds()
		p.mu.Unlock()
		last = len(batch)
		p.answered(l, batch, p.queue.Finish(ctx, batch...))
	}
}

// rides tells whether a fetch is to take the ends of a queue along, which saves a call. Ends that are worth a call of their own go beside the
// fetches, so that Redis always has one of both at hand. With few slots, twice wholeFetch, it is the fetch that everything waits for: they go beside it, too.
func (p *pool) rides(l *lane) bool {
	return p.most > wholeFetch && !p.dispatched && !l.stalled && len(l.ends) < gatherBelow && (l.state == laneReady || l.state == laneFetching)
}

// riders are the ends that go along with a fetch. Few of them wait for a later one, but not for long.
func (p *pool) riders(l *lane) []queue.End {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.rides(l) || len(l.ends) < rideFrom && time.Since(l.oldest) < gatherTime {
		return nil
	}
	return l.takeEnds()
}

func (l *lane) addEnds(ends ...queue.End) {
	if len(l.ends) == 0 {
		l.oldest = time.Now()
		if last := len(l.spare) - 1; l.ends == nil && last >= 0 {
			l.ends, l.spare = l.spare[last], l.spare[:last]
		}
	}
	l.ends = append(l.ends, ends...)
}

func (l *lane) takeEnds() []queue.End {
	ends := l.ends
	l.ends = nil
	return ends
}

// answered counts what Redis has confirmed. The batch is used again.
func (p *pool) answered(l *lane, batch []queue.End, errs []error) {
	for i, err := range errs {
		held := batch[i].Job()
		switch {
		case errors.Is(err, queue.ErrNotOwner):
			p.log.Warn("the end of an attempt was refused: another worker has the job", "job", held.ID, "queue", held.Queue)
		case err != nil:
			p.log.Error("the end of an attempt was not written: the job runs again once its lease is over",
				"job", held.ID, "queue", held.Queue, "err", err)
		case batch[i].Dead():
			p.w.dead.Add(1)
		}
	}
	p.mu.Lock()
	p.unanswered -= len(batch)
	clear(batch)
	if len(l.spare) < spares && cap(batch) > 0 {
		l.spare = append(l.spare, batch[:0])
	}
	stopping := p.stopping
	p.mu.Unlock()
	notify(p.wake)
	if stopping {
		notify(p.changed)
	}
}
