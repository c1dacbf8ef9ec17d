// Package worker runs jobs: it takes them from Redis through an engine and brings each to its task's handler.
//
// Step 5 of 7, as docs/lifecycle.md tells an event's way: the job lies in its queue, a slot of the pool is free, and its task's
// handler is called within a millisecond. What the handler returns decides how the job goes on; the pool writes that down, and
// only while the job is still its own.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/internal/lifecycle"
	"github.com/bellhop-dev/bellhop/internal/version"
	"github.com/bellhop-dev/bellhop/job"
)

// Worker is one process of the fleet.
type Worker struct {
	cfg   Config
	rdb   redis.UniversalClient
	fleet *fleet.Client
	log   *slog.Logger

	routes      map[string]job.Route
	fallback    asynq.Handler
	middlewares []job.Middleware
	feeders     []feeder
	groups      Groups
	aggregator  asynq.GroupAggregator

	// chains are the routes' handlers in their middlewares, from the start of Run; unrouted takes what no route names.
	chains   map[string]job.Handler
	unrouted job.Handler

	id      string
	started time.Time
	misused error       // before Run, which tells
	ran     atomic.Bool // Run was called

	joined     atomic.Bool
	draining   atomic.Bool
	lastBeat   atomic.Int64 // Unix ns of the last beat that Redis took
	stuckSlots atomic.Int64 // held by handlers beyond their time
	registered atomic.Bool  // its tasks are written
	dead       atomic.Int64 // jobs that failed for good here

	// abandoned ends when the grace period is over: what still runs was handed back.
	abandoned context.Context
	abandon   context.CancelFunc
}

// New returns a worker that runs the routes' jobs. It fails if the config or a route can't work. It serves the queues of the config alone
// (default: "default"), whatever the routes' tasks have as theirs.
func New(rdb redis.UniversalClient, cfg Config, routes ...job.Route) (*Worker, error) {
	if rdb == nil {
		return nil, errors.New("worker: no Redis client was given: pass what redis.NewClient returns")
	}
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("worker config: %w", err)
	}
	cfg = cfg.WithDefaults()
	w := &Worker{
		cfg: cfg, rdb: rdb, fleet: fleet.New(rdb), log: cfg.Logger,
		routes: make(map[string]job.Route, len(routes)),
		id:     uuid.NewString(),
	}
	for _, r := range routes {
		if err := w.route(r); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *Worker) route(r job.Route) error {
	name := r.Definition.Name
	switch _, taken := w.routes[name]; {
	case name == "" || r.Handle == nil:
		return fmt.Errorf("route %q has no task or no handler: pass what Task.HandledBy returns for a function", name)
	case taken:
		return fmt.Errorf("task %q has two handlers", name)
	}
	w.routes[name] = r
	return nil
}

// Use wraps every handler, the first middleware outermost. Call it before Run.
func (w *Worker) Use(middlewares ...job.Middleware) {
	w.middlewares = append(w.middlewares, middlewares...)
}

// Mount gives every task that no route names to a plain asynq handler, an asynq.ServeMux for instance. See Asynq for those that
// need the engine asynq. Call it once, before Run, which fails otherwise.
func (w *Worker) Mount(h asynq.Handler) {
	switch {
	case h == nil:
		w.misused = errors.Join(w.misused, errors.New("worker: a nil handler was mounted"))
	case w.fallback != nil:
		w.misused = errors.Join(w.misused, errors.New("worker: two handlers were mounted: put them into one asynq.ServeMux"))
	}
	w.fallback = h
}

// Feeder brings jobs into the queues: triggers, schedules.
type Feeder interface {
	// Run feeds until ctx ends.
	Run(ctx context.Context) error

	// Drained tells whether all there is to feed is in the queues.
	Drained(ctx context.Context) (bool, error)
}

type feeder struct {
	name string
	Feeder
}

// Feed runs a feeder beside the worker, as long as the worker runs. A burst ends once the feeders are drained too. Call it before Run.
func (w *Worker) Feed(name string, f Feeder) {
	w.feeders = append(w.feeders, feeder{name, f})
}

// ID is the worker's id in the fleet.
func (w *Worker) ID() string { return w.id }

// ErrJobsDied tells that a burst ended and some of its jobs had failed for good.
var ErrJobsDied = errors.New("jobs failed for good")

// Run takes jobs and runs them until ctx ends; then it takes no more, lets the running ones finish within the grace period, hands
// the others back, and returns nil. A burst also ends when its queues are drained, with ErrJobsDied if jobs failed for good.
// It is called once. If Redis can't be reached at the start, it fails at once: wait for it, or be started again.
func (w *Worker) Run(ctx context.Context) error {
	if w.ran.Swap(true) {
		return errors.New("worker: Run was called before: make another worker with New")
	}
	if w.misused != nil {
		return w.misused
	}
	w.started = time.Now()
	w.abandoned, w.abandon = context.WithCancel(context.WithoutCancel(ctx))
	defer w.abandon()

	w.chain()
	engine, err := w.newEngine()
	if err != nil {
		return err
	}
	if err := w.join(ctx); err != nil {
		if ctx.Err() != nil {
			w.leave(ctx) // told to stop while Redis' answer was under way: it may have us on the list
		}
		return err
	}
	w.tell(ctx)
	err = w.parts(engine).Run(ctx)
	w.leave(ctx)
	w.log.Info("worker stopped", "worker", w.id)
	return errors.Join(err, w.burstResult())
}

// tell logs what the worker serves, and what its operator may have overlooked.
func (w *Worker) tell(ctx context.Context) {
	w.log.Info("worker started", "worker", w.id, "engine", w.cfg.Engine, "concurrency", w.cfg.Concurrency,
		"queues", w.cfg.QueueNames(), "tasks", w.taskNames())
	w.tellUnserved(ctx)
	if len(w.routes) == 0 && w.fallback == nil && w.aggregator == nil {
		w.log.Warn("the worker has no handler: it puts off every job that it takes")
	}
	if w.fallback != nil && w.cfg.Engine != EngineAsynq {
		w.log.Warn("mounted asynq handlers: asynq.GetTaskID, GetRetryCount, GetMaxRetry and GetQueueName find nothing, and ResultWriter fails, but with the engine asynq; "+
			"look for them in your handlers", "engine", w.cfg.Engine)
	}
}

// tellUnserved warns of tasks whose own queue neither this worker serves nor another of bellhop's that lives.
func (w *Worker) tellUnserved(ctx context.Context) {
	elsewhere := make(map[string][]string)
	for _, name := range w.taskNames() {
		if queue := w.routes[name].Definition.Defaults.Queue; !slices.Contains(w.cfg.QueueNames(), queue) {
			elsewhere[queue] = append(elsewhere[queue], name)
		}
	}
	for _, queue := range slices.Sorted(maps.Keys(elsewhere)) {
		switch err := w.fleet.CheckServed(ctx, []string{queue}); {
		case errors.Is(err, fleet.ErrNotServed) && queue != job.DefaultQueue: // which nobody may have chosen
			w.log.Warn("no other bellhop worker serves a queue of this worker's tasks: without one their jobs wait; add it to the queues of this worker or another", "queue", queue, "tasks", elsewhere[queue])
		default:
			w.log.Debug("tasks of a queue that this worker does not serve", "queue", queue, "tasks", elsewhere[queue])
		}
	}
}

func (w *Worker) taskNames() []string { return slices.Sorted(maps.Keys(w.routes)) }

// parts are what runs side by side until one of them ends.
func (w *Worker) parts(engine engine) *lifecycle.Group {
	group := new(lifecycle.Group)
	stopped := make(chan struct{})
	group.Add("engine", func(ctx context.Context) error {
		defer close(stopped)
		return engine.Run(ctx)
	})
	group.Add("beat", func(ctx context.Context) error {
		w.keepBeating(context.WithoutCancel(ctx), stopped)
		return nil
	})
	for _, f := range w.feeders {
		group.Add(f.name, f.Run)
	}
	if w.cfg.Burst {
		group.Add("burst", w.untilDrained)
	}
	return group
}

func (w *Worker) burstResult() error {
	if n := w.dead.Load(); w.cfg.Burst && n > 0 {
		return fmt.Errorf("%w: %d", ErrJobsDied, n)
	}
	return nil
}

// join writes the worker and its tasks into the fleet's records, before the first job is taken.
func (w *Worker) join(ctx context.Context) error {
	err := w.register(ctx)
	if err == nil {
		err = w.beat(ctx)
	}
	if redis.HasErrorPrefix(err, "OOM") {
		// Who drains a full Redis must not be kept out of it. The beats go on trying.
		w.log.Warn("Redis is full: the worker starts, and is not listed until there is room; raise maxmemory", "err", err)
		err = nil
	}
	if unreachable := new(net.OpError); errors.As(err, &unreachable) {
		return fmt.Errorf("worker: Redis can't be reached at the start: %w", unreachable)
	}
	if err != nil {
		return err
	}
	w.joined.Store(true)
	return nil
}

func (w *Worker) definitions() []job.Definition {
	definitions := make([]job.Definition, 0, len(w.routes))
	for _, r := range w.routes {
		definitions = append(definitions, r.Definition)
	}
	return definitions
}

func (w *Worker) beat(ctx context.Context) error {
	known, err := w.fleet.Beat(ctx, w.record())
	if err != nil {
		return err
	}
	w.lastBeat.Store(time.Now().UnixNano())
	if known && w.registered.Load() {
		return nil
	}
	return w.register(ctx)
}

// register writes the worker's tasks. What fails is done again by the next beat.
func (w *Worker) register(ctx context.Context) error {
	err := w.fleet.Register(ctx, version.Short(), w.definitions())
	w.registered.Store(err == nil)
	return err
}

func (w *Worker) record() fleet.Worker {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fleet.Worker{
		ID: w.id, Host: host, PID: os.Getpid(), Build: version.Short(), Engine: w.cfg.Engine,
		Concurrency: w.cfg.Concurrency, Queues: w.cfg.weights(), Tasks: w.taskNames(), Started: w.started,
		Draining: w.draining.Load(),
	}
}

// keepBeating beats until the engine has stopped: a draining worker is alive.
func (w *Worker) keepBeating(ctx context.Context, stopped <-chan struct{}) {
	ticker := time.NewTicker(fleet.BeatEvery)
	defer ticker.Stop()
	silent := false
	for {
		select {
		case <-stopped:
			return
		case <-ticker.C:
		}
		err := w.beatWithin(ctx, fleet.AliveFor)
		switch {
		case err != nil && !silent:
			silent = true
			w.log.Warn("the worker's beat does not reach Redis, trying on", "err", err)
		case err == nil && silent:
			silent = false
			w.log.Info("the worker's beat reaches Redis again")
		}
	}
}

func (w *Worker) beatWithin(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return w.beat(ctx)
}

// leaveWithin bounds the last write of a worker whose own context has ended.
const leaveWithin = 2 * time.Second

func (w *Worker) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveWithin)
	defer cancel()
	if err := w.fleet.Leave(ctx, w.id); err != nil {
		w.log.Warn("the worker could not sign off, its record runs out by itself", "err", err)
	}
}

// staleAfter is how long a worker without a beat still counts as ready.
const staleAfter = fleet.AliveFor

// Ready tells whether the worker takes jobs: it has joined, Redis hears it, and it is not on its way out.
func (w *Worker) Ready() error {
	switch {
	case w.draining.Load():
		return errors.New("draining")
	case !w.joined.Load():
		return errors.New("starting")
	case time.Since(time.Unix(0, w.lastBeat.Load())) > staleAfter:
		return errors.New("Redis has not heard the worker's beat for " + staleAfter.String())
	}
	return nil
}

// Healthy tells why the worker should be restarted: every slot is held by a handler that ignores that its time is used up, so that no job
// can start any more. Nil if it makes progress; with the engine asynq always, which gives such slots away.
func (w *Worker) Healthy() error {
	if n := w.stuckSlots.Load(); n >= int64(w.cfg.Concurrency) {
		return fmt.Errorf("all %d slots are held by handlers that ignore that their time is used up: see the log for their stacks", n)
	}
	return nil
}
