package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bellhop-dev/bellhop/internal/wire"
)

// measurement finds values of one engine on a fresh store.
type measurement struct {
	name      string
	rounds    int
	redisOnly bool
	alone     string // measured for this name alone, not for the engines
	run       func(ctx context.Context, s *store, engine string) (Values, error)
}

// The names of the measurements, beside those of the cells.
const (
	nameScripts  = "bare scripts"
	nameSingle   = "enqueue single"
	nameBulk     = "enqueue bulk"
	nameBoth     = "produce and drain"
	namePickup   = "idle pick-up"
	nameLoaded   = "loaded pick-up"
	nameLateness = "lateness"
	nameIdle     = "idle worker"
	nameHerd     = "idle herd"
	nameMemory   = "memory"

	scriptsEngine = "scripts"
)

const (
	loadedShare      = 0.3 // of the first engine's drain rate
	latencyWorkers   = 64  // concurrency of the worker whose pick-up is timed
	bothConcurrency  = 64
	idleConcurrency  = 10
	pausedJobs       = 10
	herdSize         = 50
	herdJobsASecond  = 20
	settle           = 2 * time.Second // before an idle worker is looked at
	memoryPrefilling = 100             // jobs stored before, so that only jobs are counted
)

func (r *runner) measurements() []measurement {
	all := []measurement{{name: nameScripts, rounds: r.plan.Rounds, redisOnly: true, alone: scriptsEngine, run: r.bareScripts}}
	for _, cell := range r.plan.Cells {
		all = append(all, measurement{name: cell.String(), rounds: r.plan.Rounds, run: func(ctx context.Context, s *store, engine string) (Values, error) {
			return r.drain(ctx, s, engine, cell)
		}})
	}
	return append(
		all,
		measurement{name: nameSingle, rounds: r.plan.Rounds, run: r.enqueueSingle},
		measurement{name: nameBulk, rounds: r.plan.Rounds, run: r.enqueueBulk},
		measurement{name: nameBoth, rounds: r.plan.Rounds, run: r.both},
		measurement{name: namePickup, rounds: r.plan.Rounds, run: r.pickup},
		measurement{name: nameLoaded, rounds: r.plan.Rounds, run: r.loaded},
		measurement{name: nameLateness, rounds: r.plan.SlowRounds, redisOnly: true, run: r.lateness},
		measurement{name: nameIdle, rounds: r.plan.SlowRounds, redisOnly: true, run: r.idle},
		measurement{name: nameHerd, rounds: 1, redisOnly: true, run: r.herd},
		measurement{name: nameMemory, rounds: 1, redisOnly: true, run: r.memory},
	)
}

// producerOf is who fills the queue: the scripts drain what bellhop's client has stored.
func producerOf(engine string) string {
	if engine == scriptsEngine {
		return "bellhop:asynq" // the worker's engine plays no part in it
	}
	return engine
}

// fillStore enqueues jobs from a process of its own and checks that they are there.
func fillStore(ctx context.Context, s *store, engine string, jobs int) error {
	if _, err := runChild(ctx, order{Role: roleEnqueue, Engine: producerOf(engine), Addr: s.addr, Jobs: jobs}); err != nil {
		return err
	}
	return s.expectPending(ctx, jobs)
}

func (s *store) expectPending(ctx context.Context, jobs int) error {
	if s.redis == nil {
		return nil
	}
	n, err := s.pending(ctx, defaultQueue)
	if err == nil && n != int64(jobs) {
		err = fmt.Errorf("%d jobs are pending, %d were enqueued", n, jobs)
	}
	return err
}

// drain lets worker processes loose on a backlog, all at once. The rate is that of all jobs between the start of the first
// one and the moment at which the store has none left, pending or running. The
// handlers must have run as often as there are jobs.
func drain(ctx context.Context, s *store, engine string, cell Cell, jobs int, profile string) (Values, error) {
	if err := fillStore(ctx, s, engine, jobs); err != nil {
		return nil, err
	}
	meter, err := s.startMeter(ctx)
	if err != nil {
		return nil, err
	}
	f, err := startFleet(ctx, cell.Processes, order{Role: roleWork, Engine: engine, Addr: s.addr, Profile: profile, Worker: workerSpec{Concurrency: cell.Concurrency}})
	if err != nil {
		return nil, err
	}
	defer f.kill()
	if err := f.until(ctx, func() bool { return f.handled() >= int64(jobs) }); err != nil {
		return nil, fmt.Errorf("%d of %d jobs were run: %w", f.handled(), jobs, err)
	}
	if n := f.handled(); n != int64(jobs) {
		return nil, fmt.Errorf("%d jobs were run, %d enqueued", n, jobs)
	}
	first, last := f.span()
	end, err := s.settle(ctx, last)
	if err != nil {
		return nil, err
	}
	v := Values{"per_second": float64(jobs) / end.Sub(first).Seconds(), "jobs": float64(jobs)}
	if err := meter.read(ctx, v, jobs); err != nil {
		return nil, err
	}
	used, err := f.cpu(ctx)
	v["worker_cpu_us"] = microseconds(used) / float64(jobs)
	return v, err
}

// settle waits until the store knows that all jobs have ended, and returns since when: since the last handler's end, if it
// knows already.
func (s *store) settle(ctx context.Context, last time.Time) (time.Time, error) {
	for end := last; ; end = time.Now() {
		switch done, err := s.settled(ctx); {
		case err != nil:
			return end, err
		case done:
			return end, nil
		}
		if err := wait(ctx, time.Millisecond); err != nil {
			return end, fmt.Errorf("all handlers have ended, but not all jobs in the store: %w", err)
		}
	}
}

// bareScripts takes the better of one caller, who waits for each answer, and two, who keep Redis busy but mix their jobs in its lists.
func (r *runner) bareScripts(ctx context.Context, s *store, engine string) (Values, error) {
	best := Values{}
	for _, callers := range []int{1, 2} {
		jobs := r.backlog(engine)
		if err := fillStore(ctx, s, engine, jobs); err != nil {
			return nil, err
		}
		meter, err := s.startMeter(ctx)
		if err != nil {
			return nil, err
		}
		m, err := runChild(ctx, order{Role: roleScripts, Engine: engine, Addr: s.addr, Jobs: jobs, Workers: callers})
		if err != nil {
			return nil, err
		}
		if err := meter.read(ctx, m.Values, jobs); err != nil {
			return nil, err
		}
		if m.Values["per_second"] > best["per_second"] {
			best = m.Values
			best["callers"] = float64(callers)
		}
	}
	return best, nil
}

func (r *runner) enqueueSingle(ctx context.Context, s *store, engine string) (Values, error) {
	return enqueueFor(ctx, s, order{Role: roleEnqueue, Engine: engine, Addr: s.addr, For: r.plan.Enqueue})
}

func (r *runner) enqueueBulk(ctx context.Context, s *store, engine string) (Values, error) {
	return enqueueFor(ctx, s, order{Role: roleEnqueue, Engine: engine, Addr: s.addr, For: r.plan.Enqueue, Bulk: true})
}

func enqueueFor(ctx context.Context, s *store, o order) (Values, error) {
	m, err := runChild(ctx, o)
	if err != nil {
		return nil, err
	}
	return m.Values, s.expectPending(ctx, int(m.Values["enqueued"]))
}

// both produces in one process while another one drains. Counted is what is drained from the start of the first job until the
// producer ends: a worker that first has to wake up is not charged with it.
func (r *runner) both(ctx context.Context, s *store, engine string) (Values, error) {
	f, err := startFleet(ctx, 1, order{Role: roleWork, Engine: engine, Addr: s.addr, Worker: workerSpec{Concurrency: bothConcurrency}})
	if err != nil {
		return nil, err
	}
	defer f.kill()
	produced, err := runChild(ctx, order{Role: roleEnqueue, Engine: engine, Addr: s.addr, For: r.plan.Both})
	if err != nil {
		return nil, err
	}
	end := time.Unix(0, produced.At)
	if err := f.until(ctx, func() bool { return f.at().After(end) || f.handled() == int64(produced.Values["enqueued"]) }); err != nil {
		return nil, err
	}
	first, _ := f.span()
	handled, at := f.before(end)
	if handled == 0 || !at.After(first) {
		return nil, errors.New("no job was run while jobs were produced")
	}
	return Values{
		"per_second":          float64(handled) / at.Sub(first).Seconds(),
		"produced_per_second": produced.Values["per_second"],
	}, nil
}

// pickup times single jobs that come at random to an idle worker.
func (r *runner) pickup(ctx context.Context, s *store, engine string) (Values, error) {
	m, err := runChild(ctx, order{
		Role: roleLatency, Engine: engine, Addr: s.addr, Worker: workerSpec{Concurrency: latencyWorkers},
		Jobs: r.plan.PickupJobs, MinGap: 20 * time.Millisecond, MaxGap: 50 * time.Millisecond,
	})
	return m.Values, err
}

// loaded times jobs that come at random, with the same rate for each engine: 30% of what the first one can drain.
func (r *runner) loaded(ctx context.Context, s *store, engine string) (Values, error) {
	m, err := runChild(ctx, order{
		Role: roleLatency, Engine: engine, Addr: s.addr, Worker: workerSpec{Concurrency: latencyWorkers},
		Jobs: int(r.load * r.plan.Loaded.Seconds()), PerSecond: r.load,
	})
	if err == nil {
		m.Values["load_per_second"] = r.load
	}
	return m.Values, err
}

func (r *runner) lateness(ctx context.Context, s *store, engine string) (Values, error) {
	m, err := runChild(ctx, order{
		Role: roleLateness, Engine: engine, Addr: s.addr, Worker: workerSpec{Concurrency: latencyWorkers},
		Jobs: r.plan.LatenessJobs, For: r.plan.LatenessSpan,
	})
	return m.Values, err
}

// idle looks at a worker that has nothing to do: three queues, one of them paused with jobs in it.
func (r *runner) idle(ctx context.Context, s *store, engine string) (Values, error) {
	const paused = "low"
	if err := s.pause(ctx, engine, paused); err != nil {
		return nil, err
	}
	f, err := startFleet(ctx, 1, order{Role: roleWork, Engine: engine, Addr: s.addr, Worker: workerSpec{
		Concurrency: idleConcurrency, Queues: map[string]int{"critical": 6, defaultQueue: 3, paused: 1},
	}})
	if err != nil {
		return nil, err
	}
	defer f.kill()
	v, err := idleFor(ctx, s, f, r.plan.Idle)
	if err != nil {
		return nil, err
	}
	if n, err := s.pending(ctx, paused); err != nil || n != pausedJobs {
		return nil, errors.Join(err, fmt.Errorf("%d of %d jobs are left in the paused queue", n, pausedJobs))
	}
	return v, nil
}

// pause stores jobs and pauses their queue as asynq.Inspector does.
func (s *store) pause(ctx context.Context, engine, queue string) error {
	e, err := engineNamed(engine)
	if err != nil {
		return err
	}
	prod, err := e.open(ctx, s.addr)
	if err != nil {
		return err
	}
	defer prod.close()
	for n := range pausedJobs {
		if err := prod.enqueue(ctx, queue, int64(n)); err != nil {
			return err
		}
	}
	return s.redis.SetNX(ctx, wire.PausedKey(queue), time.Now().Unix(), 0).Err()
}

func idleFor(ctx context.Context, s *store, f *fleet, d time.Duration) (Values, error) {
	if err := wait(ctx, settle); err != nil {
		return nil, err
	}
	before, err := usageOf(ctx, s, f)
	if err != nil {
		return nil, err
	}
	if err := wait(ctx, d); err != nil {
		return nil, err
	}
	after, err := usageOf(ctx, s, f)
	if err != nil {
		return nil, err
	}
	took := after.at.Sub(before.at).Seconds()
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) / took }
	v := Values{
		"commands_per_second": (after.total() - before.total()) / took,
		"worker_cpu_ms":       ms(after.worker - before.worker),
		"redis_cpu_ms":        ms(after.redis - before.redis),
	}
	for name, c := range after.commands {
		if calls := c.calls - before.commands[name].calls; calls > 0 {
			v[detail+"calls_of_"+name] = calls / took
		}
	}
	return v, nil
}

type usage struct {
	at            time.Time
	commands      map[string]command
	worker, redis time.Duration
}

func (u usage) total() (n float64) {
	for _, c := range u.commands {
		n += c.calls
	}
	return n
}

func usageOf(ctx context.Context, s *store, f *fleet) (u usage, err error) {
	u.at = time.Now()
	if u.worker, err = f.cpu(ctx); err != nil {
		return u, err
	}
	if u.redis, err = s.cpu(ctx); err != nil {
		return u, err
	}
	u.commands, err = s.commands(ctx)
	return u, err
}

// herd has fifty idle workers on one queue: what does Redis do for one pushed job, beyond what the idle workers cost anyway?
func (r *runner) herd(ctx context.Context, s *store, engine string) (Values, error) {
	e, err := engineNamed(engine)
	if err != nil {
		return nil, err
	}
	f, err := startFleet(ctx, 1, order{Role: roleWork, Engine: engine, Addr: s.addr, Workers: herdSize, Worker: workerSpec{Concurrency: 1}})
	if err != nil {
		return nil, err
	}
	defer f.kill()
	prod, err := e.open(ctx, s.addr)
	if err != nil {
		return nil, err
	}
	defer prod.close()
	if err := prod.enqueue(ctx, defaultQueue, 0); err != nil { // scripts are loaded with it
		return nil, err
	}
	idle, err := idleFor(ctx, s, f, r.plan.Herd)
	if err != nil {
		return nil, err
	}
	jobs := int(r.plan.Herd.Seconds() * herdJobsASecond)
	before, err := usageOf(ctx, s, f)
	if err != nil {
		return nil, err
	}
	for n := 1; n <= jobs; n++ {
		if err := wait(ctx, time.Second/herdJobsASecond); err != nil {
			return nil, err
		}
		if err := prod.enqueue(ctx, defaultQueue, int64(n)); err != nil {
			return nil, err
		}
	}
	if err := f.until(ctx, func() bool { return f.handled() == int64(jobs)+1 }); err != nil {
		return nil, err
	}
	after, err := usageOf(ctx, s, f)
	if err != nil {
		return nil, err
	}
	took := after.at.Sub(before.at).Seconds()
	v := Values{
		"commands_per_job":    (after.total() - before.total() - idle["commands_per_second"]*took) / float64(jobs),
		"commands_per_second": idle["commands_per_second"],
	}
	for name, c := range after.commands {
		atRest := idle[detail+"calls_of_"+name]
		v[detail+"calls_at_rest_of_"+name] = atRest
		v[detail+"calls_per_job_of_"+name] = (c.calls - before.commands[name].calls - atRest*took) / float64(jobs)
	}
	return v, nil
}

// memory is what a pending job takes of Redis.
func (r *runner) memory(ctx context.Context, s *store, engine string) (Values, error) {
	if err := fillStore(ctx, s, engine, memoryPrefilling); err != nil {
		return nil, err
	}
	before, err := s.memory(ctx)
	if err != nil {
		return nil, err
	}
	jobs := r.plan.MemoryJobs
	if _, err := runChild(ctx, order{Role: roleEnqueue, Engine: engine, Addr: s.addr, Jobs: jobs}); err != nil {
		return nil, err
	}
	if err := s.expectPending(ctx, memoryPrefilling+jobs); err != nil {
		return nil, err
	}
	after, err := s.memory(ctx)
	return Values{"bytes_per_job": (after - before) / float64(jobs)}, err
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
