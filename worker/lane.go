package worker

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/bellhop-dev/bellhop/queue"
)

// lane is what the pool knows of one queue. The pool's mutex guards it.
type lane struct {
	name   string
	weight int

	state    laneState
	failures int           // of fetches, one after the other
	empty    chan struct{} // tells wait that a fetch found nothing more

	ends    []queue.End
	spare   [][]queue.End // empty ones, to write into once the ends are taken
	oldest  time.Time     // when the first of the ends came
	stalled bool          // a fetch takes long: ends don't wait for it
	ended   chan struct{} // tells finish that there are ends
}

type laneState int

const (
	laneReady    laneState = iota // there may be jobs: fetch once there are slots
	laneFetching                  // asked
	laneWaiting                   // empty or paused: wait tells
	laneResting                   // Redis failed: later
)

func newLane(q Queue) *lane {
	return &lane{name: q.Name, weight: q.Weight, empty: make(chan struct{}, 1), ended: make(chan struct{}, 1)}
}

// ring tells finish that there are ends.
func (l *lane) ring() { notify(l.ended) }

// wait waits for jobs in a queue that a fetch has found empty, and starts those that come alone, until ctx ends. A backlog is dispatch's.
func (p *pool) wait(ctx context.Context, l *lane) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.empty:
		}
		for ctx.Err() == nil && p.await(ctx, l) {
		}
	}
}

// await waits once, and tells whether the queue is still to be waited for.
func (p *pool) await(ctx context.Context, l *lane) bool {
	got, err := p.waiter.Wait(l.name, p.hasFree)
	switch {
	case err == nil && p.woken(ctx, l, got):
		return true
	case err == nil, errors.Is(err, queue.ErrBusy):
		p.passOn(p.fetches, l) // there may be no slot to fetch for
		p.ready(l)
	case ctx.Err() == nil:
		p.redis.failed("fetch from "+l.name, err)
		p.rest(l)
	}
	return false
}

// hasFree tells whether a job that came now could start. The slot is not set aside for it: another queue may have filled it by then.
func (p *pool) hasFree() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.room() > 0
}

// woken starts the jobs that a wait has brought, and tells whether they were all there are.
func (p *pool) woken(ctx context.Context, l *lane, got queue.Fetched) bool {
	p.redis.answered("fetch from " + l.name)
	p.tell(l, got)
	p.mu.Lock()
	n := max(min(p.free, len(got.Jobs)), 0)
	p.free -= n
	p.mu.Unlock()
	p.start(ctx, l, n, got.Jobs[:n])
	if n > 0 {
		runtime.Gosched() // they start before this goroutine waits again
	}
	p.handBack(got.Jobs[n:])
	return got.Paused || len(got.Jobs) > 0 && got.Left == 0 && got.HeldBack == 0
}

// passWatches gives the queues' watches to the next idle workers, once nothing waits or fetches here any more: a push during the drain must not
// wake one that takes no jobs. A job that came while this worker stopped goes back first.
func (p *pool) passWatches() {
	ctx, cancel := context.WithTimeout(p.base, leaveWithin)
	defer cancel()
	if err := p.queue.Settle(ctx); err != nil {
		p.log.Warn("what was fetched last could not be handed back, leaving tries again", "err", err)
	}
	for _, l := range p.lanes {
		p.passOn(ctx, l)
	}
}

// passOn gives a queue's watch, if it is here, to the next idle worker.
func (p *pool) passOn(ctx context.Context, l *lane) {
	if err := p.waiter.PassOn(ctx, l.name); err != nil {
		p.redis.failed("fetch from "+l.name, err)
	}
}

// room is how many jobs can be taken. The ends that Redis has not confirmed count against it only beyond a bound.
func (p *pool) room() int {
	return min(p.free, max(p.w.cfg.Concurrency, minBacklog)-p.unanswered)
}

func (p *pool) ready(l *lane) {
	p.mu.Lock()
	l.state = laneReady
	p.mu.Unlock()
	notify(p.wake)
}

const (
	firstRest = 100 * time.Millisecond
	maxRest   = 2 * time.Second
)

// rest leaves a queue alone for a while after a failure.
func (p *pool) rest(l *lane) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.state = laneResting
	pause := maxRest
	if l.failures < 5 {
		pause = min(firstRest<<l.failures, maxRest)
	}
	l.failures++
	time.AfterFunc(jitter(pause), func() {
		if !p.hasFree() {
			_ = p.queue.Settle(p.fetches, l.name) // what a lost answer has taken does not wait for a slot; failing that, the next fetch sees to it
		}
		p.ready(l)
	})
}
