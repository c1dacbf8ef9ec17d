package worker_test

import (
	"context"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/worker"
)

// A worker that drains gives the watch of its queues away: a job that comes meanwhile wakes an idle one at once.
func TestDrainingWorkerPassesTheWatchOn(t *testing.T) {
	t.Parallel()
	b := newPoolBench(t)
	gate, ran := make(chan struct{}), make(chan struct{}, 2)
	long := job.Define[payload]("long")
	routes := []job.Route{
		long.HandledBy(func(context.Context, payload) error { ran <- struct{}{}; <-gate; return nil }),
		echo.HandledBy(func(context.Context, payload) error { ran <- struct{}{}; return nil }),
	}
	watcher := func() string { return b.rdb.Get(t.Context(), wire.WatcherKey("default")).Val() }

	first, stop := b.start(b.config(), routes...)
	if _, err := long.Enqueue(t.Context(), b.client, payload{}); err != nil {
		t.Fatal(err)
	}
	receive(b, ran)
	b.eventually("the busy worker watches", func() bool { return watcher() == first.ID() })
	second, _ := b.start(b.config(), routes...)
	b.eventually("the idle worker is ready", func() bool { return second.Ready() == nil })

	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	before := time.Now()
	b.eventually("the idle worker watches", func() bool { return watcher() == second.ID() })
	if took := time.Since(before); took > 8*time.Second { // a watch that is not passed on ends after 15 s
		t.Errorf("the watch was passed on after %v", took)
	}
	b.enqueue(1)
	receive(b, ran)
	close(gate)
	if err := receive(b, stopped); err != nil {
		t.Error(err)
	}
}

// An aggregator that does not return holds a stop up for the grace period, and no longer; what it answers then is not stored.
func TestAggregatorDoesNotHoldTheStopUp(t *testing.T) {
	t.Parallel()
	b := newPoolBench(t)
	cfg := b.config()
	cfg.Grace = 200 * time.Millisecond
	w, err := worker.New(b.rdb, cfg)
	if err != nil {
		t.Fatal(err)
	}
	called, release, returned := make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	if err := w.Aggregate(worker.Groups{Grace: time.Hour, MaxSize: 1}, asynq.GroupAggregatorFunc(func(string, []*asynq.Task) *asynq.Task {
		called <- struct{}{}
		<-release
		defer close(returned)
		return asynq.NewTask("aggregated", nil)
	})); err != nil {
		t.Fatal(err)
	}
	waiting := b.enqueue(1, job.Group("g"))
	stop := b.run(w)
	receive(b, called)
	if err := stop(); err != nil { // it returns, though the aggregator does not
		t.Error(err)
	}
	close(release)
	receive(b, returned)
	if got := b.state(waiting); got != "aggregating" {
		t.Errorf("the job is %s", got)
	}
	if n := b.rdb.LLen(t.Context(), wire.PendingKey("default")).Val(); n != 0 {
		t.Errorf("%d jobs were stored", n)
	}
}

// Who stops a worker is told at once what it waits for, and how long at most.
func TestDrainTells(t *testing.T) {
	t.Parallel()
	b := newPoolBench(t)
	var lines journal
	cfg := b.config()
	cfg.Logger = lines.logger()
	running, finish := make(chan struct{}), make(chan struct{})
	_, stop := b.start(cfg, echo.HandledBy(func(context.Context, payload) error { close(running); <-finish; return nil }))
	b.enqueue(1)
	receive(b, running)
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	b.eventually("the drain is told", func() bool { return lines.count("draining") == 1 && lines.count("jobs=1 grace=5s") == 1 })
	if lines.count("drained") != 0 {
		t.Error("drained, with a job running")
	}
	close(finish)
	if err := receive(b, stopped); err != nil {
		t.Error(err)
	}
	if lines.count("drained") != 1 {
		t.Error("the end of the drain is not told")
	}
}

// A burst says what it leaves behind.
func TestBurstTellsWhatIsLeft(t *testing.T) {
	t.Parallel()
	b := newPoolBench(t)
	b.enqueue(1)
	b.enqueue(2)
	if err := b.inspector.PauseQueue("default"); err != nil {
		t.Fatal(err)
	}
	var lines journal
	cfg := b.config()
	cfg.Burst, cfg.Logger = true, lines.logger()
	w, err := worker.New(b.rdb, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Run(t.Context()); err != nil {
		t.Error(err)
	}
	if lines.count("paused queue\" queue=default jobs=2") != 1 || lines.count("drained") != 0 {
		t.Error(lines.text.String())
	}
}
