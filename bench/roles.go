package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"
)

// The roles of children.
const (
	roleWork     = "worker"
	roleEnqueue  = "producer"
	roleLatency  = "latency"
	roleLateness = "lateness"
	roleScripts  = "scripts"
)

func roles() map[string]func(context.Context, *parent, order) error {
	return map[string]func(context.Context, *parent, order) error{
		roleWork: work, roleEnqueue: enqueue, roleLatency: latency, roleLateness: lateness, roleScripts: scripts,
	}
}

// producers is how many goroutines enqueue single jobs.
const producers = 64

// bulkSize is how many jobs one call of bulk enqueues.
const bulkSize = 1000

// work runs a worker, several where so ordered, and tells how many jobs it has run.
func work(ctx context.Context, p *parent, o order) error {
	e, err := engineNamed(o.Engine)
	if err != nil {
		return err
	}
	tally := tally{news: make(chan struct{}, 1)}
	tally.resting.Store(true)
	for range max(o.Workers, 1) {
		run, err := e.worker(ctx, o.Addr, o.Worker, tally.handle)
		if err != nil {
			return err
		}
		tally.runs = append(tally.runs, run)
	}
	if err := p.ready(); err != nil {
		return err
	}
	if o.Profile != "" {
		file, err := os.Create(o.Profile)
		if err != nil {
			return err
		}
		defer file.Close() //nolint:errcheck // the profile is complete before
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
	}
	failed := tally.start(ctx)
	go tally.report(p, failed)
	p.untilEnd()
	return nil
}

// tally counts the jobs of a process.
type tally struct {
	runs        []runnable
	handled     atomic.Int64
	first, last atomic.Int64 // Unix ns

	resting atomic.Bool // report waits for the next job
	news    chan struct{}
}

func (t *tally) handle(int64) {
	now := time.Now().UnixNano()
	if t.handled.Add(1) == 1 {
		t.first.Store(now)
	}
	t.last.Store(now)
	if t.resting.Load() && t.resting.CompareAndSwap(true, false) {
		t.news <- struct{}{}
	}
}

func (t *tally) start(ctx context.Context) <-chan error {
	failed := make(chan error, len(t.runs))
	for _, run := range t.runs {
		go func() { failed <- run(ctx) }()
	}
	return failed
}

// reportEvery bounds how exactly a parent sees the progress; the times in a report are exact.
const reportEvery = 10 * time.Millisecond

// report rests while nothing is run: what an idle worker costs is not to be the report's.
func (t *tally) report(p *parent, failed <-chan error) {
	var tick <-chan time.Time
	told := int64(0)
	for {
		select {
		case err := <-failed:
			p.tell(message{Kind: kindError, Error: fmt.Sprintf("the worker stopped: %v", err)})
			return
		case <-t.news:
		case <-tick:
		}
		tick = time.After(reportEvery)
		if handled := t.handled.Load(); handled != told {
			// Last is read after the count: it may be of a later job, never of an earlier one.
			p.tell(message{Kind: kindProgress, Handled: handled, First: t.first.Load(), Last: t.last.Load(), At: time.Now().UnixNano()})
			told = handled
			continue
		}
		if t.resting.Store(true); t.handled.Load() == told {
			tick = nil
		}
	}
}

// enqueue brings in a number of jobs in bulk, or as many as it can in a time.
func enqueue(ctx context.Context, p *parent, o order) error {
	e, err := engineNamed(o.Engine)
	if err != nil {
		return err
	}
	prod, err := e.open(ctx, o.Addr)
	if err != nil {
		return err
	}
	defer prod.close()
	if err := p.ready(); err != nil {
		return err
	}
	if o.Jobs > 0 {
		err = fill(ctx, prod, o.Jobs)
		p.finish(err, nil)
		return nil
	}
	var n int64
	begin := time.Now()
	if o.Bulk {
		n, err = bulkFor(ctx, prod, o.For)
	} else {
		n, err = singlesFor(ctx, prod, o.For)
	}
	end := time.Now()
	p.finish(err, Values{"enqueued": float64(n), "per_second": float64(n) / end.Sub(begin).Seconds()})
	return nil
}

// finish tells the result and stays until the parent has read it.
func (p *parent) finish(err error, v Values) {
	if err != nil {
		p.tell(message{Kind: kindError, Error: err.Error()})
	} else {
		p.tell(message{Kind: kindResult, Values: v, At: time.Now().UnixNano()})
	}
	p.untilEnd()
}

func fill(ctx context.Context, prod producer, jobs int) error {
	for first := 0; first < jobs; first += bulkSize {
		if err := prod.bulk(ctx, int64(first), min(bulkSize, jobs-first)); err != nil {
			return err
		}
	}
	return nil
}

func bulkFor(ctx context.Context, prod producer, d time.Duration) (n int64, err error) {
	for end := time.Now().Add(d); time.Now().Before(end); n += bulkSize {
		if err := prod.bulk(ctx, n, bulkSize); err != nil {
			return n, err
		}
	}
	return n, nil
}

func singlesFor(ctx context.Context, prod producer, d time.Duration) (int64, error) {
	end := time.Now().Add(d)
	var n atomic.Int64
	errs := make([]error, producers)
	var all sync.WaitGroup
	for g := range producers {
		all.Go(func() {
			for time.Now().Before(end) && errs[g] == nil {
				errs[g] = prod.enqueue(ctx, defaultQueue, n.Add(1))
			}
		})
	}
	all.Wait()
	return n.Load(), errors.Join(errs...)
}

// latency runs a worker and enqueues beside it, at random times: how long from just before the enqueue until the handler starts?
func latency(ctx context.Context, p *parent, o order) error {
	e, err := engineNamed(o.Engine)
	if err != nil {
		return err
	}
	watch := newStopwatch(o.Jobs)
	prod, err := e.open(ctx, o.Addr)
	if err != nil {
		return err
	}
	defer prod.close()
	run, err := e.worker(ctx, o.Addr, o.Worker, watch.handled)
	if err != nil {
		return err
	}
	if err := p.ready(); err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- run(ctx) }()
	if err := watch.warm(ctx, prod); err != nil {
		return err
	}
	if err := sendAtRandom(ctx, prod, watch, o); err != nil {
		return err
	}
	if err := watch.wait(failed); err != nil {
		return err
	}
	p.finish(nil, quantiles(watch.took))
	return nil
}

// sendAtRandom does not wait for one job before it sends the next: a slow pick-up must not thin out what follows it.
func sendAtRandom(ctx context.Context, prod producer, watch *stopwatch, o order) error {
	errs := make(chan error, o.Jobs)
	next := time.Now()
	for n := 1; n <= o.Jobs; n++ {
		next = next.Add(o.gap())
		if err := wait(ctx, time.Until(next)); err != nil {
			return err
		}
		go func() {
			watch.sent[n].Store(int64(time.Since(watch.begin)))
			errs <- prod.enqueue(ctx, defaultQueue, int64(n))
		}()
	}
	for range o.Jobs {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

func (o order) gap() time.Duration {
	if o.PerSecond > 0 {
		return time.Duration(rand.ExpFloat64() / o.PerSecond * float64(time.Second))
	}
	return o.MinGap + rand.N(o.MaxGap-o.MinGap)
}

// stopwatch times jobs 1..n on one clock; job 0 only warms up.
type stopwatch struct {
	begin time.Time
	sent  []atomic.Int64 // ns since begin
	took  []time.Duration
	seen  []atomic.Bool
	left  atomic.Int64
	warmd chan struct{}
	done  chan struct{}
}

func newStopwatch(jobs int) *stopwatch {
	w := &stopwatch{
		begin: time.Now(), sent: make([]atomic.Int64, jobs+1), took: make([]time.Duration, jobs), seen: make([]atomic.Bool, jobs+1),
		warmd: make(chan struct{}), done: make(chan struct{}),
	}
	w.left.Store(int64(jobs))
	return w
}

func (w *stopwatch) handled(n int64) {
	now := time.Since(w.begin)
	if w.seen[n].Swap(true) {
		return // a second attempt is not what is timed
	}
	if n == 0 {
		close(w.warmd)
		return
	}
	w.took[n-1] = now - time.Duration(w.sent[n].Load())
	if w.left.Add(-1) == 0 {
		close(w.done)
	}
}

// waitLimit is far above what any engine takes.
const waitLimit = 30 * time.Second

func (w *stopwatch) warm(ctx context.Context, prod producer) error {
	if err := prod.enqueue(ctx, defaultQueue, 0); err != nil {
		return err
	}
	select {
	case <-w.warmd:
		return nil
	case <-time.After(waitLimit):
		return fmt.Errorf("the first job was not run within %v", waitLimit)
	}
}

func (w *stopwatch) wait(failed <-chan error) error {
	select {
	case <-w.done:
		return nil
	case err := <-failed:
		return fmt.Errorf("the worker stopped: %w", err)
	case <-time.After(waitLimit):
		return fmt.Errorf("%d jobs were not run within %v", w.left.Load(), waitLimit)
	}
}

// lateness schedules jobs at random milliseconds and tells how late they start; early ones count below zero.
func lateness(ctx context.Context, p *parent, o order) error {
	e, err := engineNamed(o.Engine)
	if err != nil {
		return err
	}
	prod, err := e.open(ctx, o.Addr)
	if err != nil {
		return err
	}
	defer prod.close()
	watch := newStopwatch(o.Jobs)
	at := make([]time.Time, o.Jobs+1)
	begin := time.Now().Add(scheduleAhead).Truncate(time.Millisecond)
	watch.begin = begin.Add(-time.Hour) // all times of the stopwatch stay above zero
	for n := 1; n <= o.Jobs; n++ {
		at[n] = begin.Add(rand.N(o.For).Truncate(time.Millisecond))
		watch.sent[n].Store(int64(at[n].Sub(watch.begin)))
	}
	run, err := e.worker(ctx, o.Addr, o.Worker, watch.handled)
	if err != nil {
		return err
	}
	if err := p.ready(); err != nil {
		return err
	}
	for n := 1; n <= o.Jobs; n++ {
		if err := prod.schedule(ctx, int64(n), at[n]); err != nil {
			return err
		}
	}
	if time.Until(begin) < 0 {
		return fmt.Errorf("scheduling %d jobs took more than %v", o.Jobs, scheduleAhead)
	}
	failed := make(chan error, 1)
	go func() { failed <- run(ctx) }()
	if err := watch.wait(failed); err != nil {
		return err
	}
	p.finish(nil, quantiles(watch.took))
	return nil
}

// scheduleAhead is the time to store the jobs before the first one is due. asynq cuts a time down to its second: the
// first second stays out of the past for it too.
const scheduleAhead = 3 * time.Second
