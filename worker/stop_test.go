package worker_test

import (
	"context"
	"testing"
	"time"

	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/job"
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
	if took := time.Since(before); took > 3*time.Second {
		t.Errorf("the watch was passed on after %v", took)
	}
	b.enqueue(1)
	receive(b, ran)
	close(gate)
	if err := receive(b, stopped); err != nil {
		t.Error(err)
	}
}
