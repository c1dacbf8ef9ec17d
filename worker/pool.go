package worker

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/bellhop-dev/bellhop/queue"
)

// pool is the engine over package queue. It takes as many jobs as it has free slots, never more: a fetched job starts at once.
// A handler's end frees its slot at once, too; the end itself goes to Redis with others, while the next jobs are fetched.
type pool struct {
	w     *Worker
	log   *slog.Logger
	redis *outage
	queue *queue.Worker

	lanes []*lane // the heaviest first

	// Of dispatch alone.
	enough, most int // see fetchSizes
	nextLanes    []*lane
	readers      sync.WaitGroup // of answers

	wake chan struct{} // tells dispatch that slots or lanes have changed

	ballast []byte // see ballastFor

	// Set by Run, before anything else starts.
	waiter  *queue.Waiter
	base    context.Context //nolint:containedctx // of every attempt: carries Run's values, and does not end with it
	fetches context.Context //nolint:containedctx // bounds the fetches under way when Run's context ends

	mu         sync.Mutex
	free       int // slots
	running    attempts
	runners    runners
	unanswered int          // ends that Redis has not confirmed
	unstarted  []*queue.Job // fetched, or abandoned: they go back
	dispatched bool         // dispatch has ended
	stopping   bool
	changed    chan struct{} // while stopping: a job or an end less
}

const (
	// minBacklog and the concurrency bound the ends that wait for Redis: beyond, nothing is fetched.
	minBacklog = 500

	// fetchGrace is how long a fetch may go on once the worker stops.
	fetchGrace = 500 * time.Millisecond

	// abandonGrace is how long handlers have to return once their context has ended with ErrAbandoned.
	abandonGrace = 300 * time.Millisecond

	// flushLimit bounds the wait for the last ends, if Redis is out of reach.
	flushLimit = 4 * time.Second
)

func newPool(w *Worker) (*pool, error) {
	owner, err := queue.New(w.rdb).NewWorker(w.id, w.cfg.QueueNames()...)
	if err != nil {
		return nil, err
	}
	log := w.log.With("engine", EngineBellhop)
	p := &pool{
		w: w, log: log, redis: newOutage(log), queue: owner,
		wake: make(chan struct{}, 1), changed: make(chan struct{}, 1),
		free: w.cfg.Concurrency,
	}
	p.enough, p.most = fetchSizes(w.cfg.Concurrency)
	p.ballast = ballastFor(w.cfg.Concurrency)
	for _, q := range w.cfg.Queues {
		p.lanes = append(p.lanes, newLane(q))
	}
	slices.SortStableFunc(p.lanes, func(a, b *lane) int { return cmp.Compare(b.weight, a.weight) })
	return p, nil
}

const (
	ballastPerSlot = 64 << 10
	mostBallast    = 16 << 20
)

// ballastFor is memory that is counted and never touched, so that it takes address space alone. Go collects garbage whenever the heap has
// doubled: a busy pool of many slots, whose jobs come and go and leave next to nothing, would do so thirty times a second, on the cores that
// Redis and handlers want. With a memory limit (GOMEMLIMIT), each byte is wanted for other things.
func ballastFor(slots int) []byte {
	if debug.SetMemoryLimit(-1) != math.MaxInt64 {
		return nil
	}
	return make([]byte, min(slots*ballastPerSlot, mostBallast))
}

// Run takes and runs jobs until ctx ends; then it lets the running ones finish and hands back the rest.
func (p *pool) Run(ctx context.Context) error {
	p.base = context.WithoutCancel(ctx)
	// What still runs after ctx has ended is spoken for and written down all the same.
	alive, stop := context.WithCancel(p.base)
	defer stop()
	fetches, stopFetches := context.WithCancel(p.base)
	defer stopFetches()
	p.fetches = fetches
	defer context.AfterFunc(ctx, func() { time.AfterFunc(fetchGrace, stopFetches) })()

	waiter, err := p.queue.Waiter(ctx)
	if err != nil {
		return err
	}
	keeper, err := p.queue.Waiter(alive)
	if err != nil {
		return fmt.Errorf("keep queues: %w", err)
	}
	p.waiter = waiter

	var parts sync.WaitGroup
	parts.Go(func() { p.beat(alive, keeper) })
	parts.Go(func() { p.listen(alive) })
	parts.Go(func() { p.appear(alive) })
	parts.Go(func() { p.reap(alive) })
	aggregated := make(chan struct{})
	go func() {
		defer close(aggregated)
		p.aggregate(ctx, alive)
	}()
	var waits sync.WaitGroup
	for _, l := range p.lanes {
		waits.Go(func() { p.wait(ctx, l) })
		parts.Go(func() { p.finish(alive, l) })
	}
	p.dispatch(ctx)

	p.w.draining.Store(true)
	waits.Wait()
	parts.Go(p.passWatches)
	p.drain(aggregated)
	stop()
	parts.Wait()
	p.leave()
	return nil
}

// drain lets the running jobs and the aggregator finish, and hands back what did not start, or does not end in time.
func (p *pool) drain(aggregated <-chan struct{}) {
	grace := time.NewTimer(p.w.cfg.Grace)
	defer grace.Stop()
	p.mu.Lock()
	p.stopping = true
	p.mu.Unlock()
	p.handBack(p.takeUnstarted())
	p.mu.Lock()
	running := p.running.n
	p.mu.Unlock()
	if running > 0 {
		p.log.Info("draining: running jobs may finish within the grace period", "jobs", running, "grace", p.w.cfg.Grace.String())
	}
	switch {
	case !p.until(p.w.cfg.Grace, func() bool { return p.running.n == 0 }):
		p.abandon()
	case running > 0:
		p.log.Info("drained")
	}
	select {
	case <-aggregated:
	case <-grace.C:
		p.log.Warn("the grace period is over, an aggregator that still runs is given up: its group is tried again in two minutes")
	}
	if !p.until(flushLimit, func() bool { return p.unanswered == 0 }) {
		p.log.Error("Redis did not confirm how some jobs ended: they run again once their lease is over")
	}
}

// takeUnstarted are the jobs that were fetched and that no runner has begun.
func (p *pool) takeUnstarted() []*queue.Job {
	p.mu.Lock()
	defer p.mu.Unlock()
	jobs := p.unstarted
	p.unstarted = nil
	for a := p.runners.take(); a != nil; a = p.runners.take() {
		p.running.remove(a)
		a.ctx.finish()
		jobs = append(jobs, a.held)
	}
	p.runners.close()
	return jobs
}

// abandon ends the contexts of what still runs and hands its jobs back.
func (p *pool) abandon() {
	p.mu.Lock()
	p.log.Warn("the grace period is over, running jobs are handed back", "jobs", p.running.n, "grace", p.w.cfg.Grace.String())
	for a := range p.running.all() {
		a.ctx.stop(ErrAbandoned)
	}
	p.mu.Unlock()
	p.until(abandonGrace, func() bool { return p.running.n == 0 })

	p.mu.Lock()
	jobs := p.unstarted
	for a := range p.running.all() {
		p.running.remove(a)
		jobs = append(jobs, a.held)
	}
	p.mu.Unlock()
	p.handBack(jobs)
}

// handBack gives jobs back to the head of their queues, in the order in which they stood there.
func (p *pool) handBack(jobs []*queue.Job) {
	slices.SortFunc(jobs, func(a, b *queue.Job) int { return cmp.Compare(b.Attempt, a.Attempt) })
	for _, l := range p.lanes {
		var ends []queue.End
		for _, j := range jobs {
			if j.Queue == l.name {
				ends = append(ends, queue.HandBack(j))
			}
		}
		if len(ends) > 0 {
			p.mu.Lock()
			p.unanswered += len(ends)
			l.addEnds(ends...)
			p.mu.Unlock()
			l.ring()
		}
	}
}

// until waits for a condition of the stopping pool, at most so long.
func (p *pool) until(limit time.Duration, ok func() bool) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		p.mu.Lock()
		holds := ok()
		p.mu.Unlock()
		if holds {
			return true
		}
		select {
		case <-p.changed:
		case <-timer.C:
			return false
		}
	}
}

// leave takes the worker out of its queues, so that nobody waits for its beats.
func (p *pool) leave() {
	ctx, cancel := context.WithTimeout(p.base, leaveWithin)
	defer cancel()
	if err := p.queue.Leave(ctx); err != nil {
		p.log.Warn("the worker could not leave its queues, others find out by its silence", "err", err)
	}
}

// notify leaves a note in a channel with room for one.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
