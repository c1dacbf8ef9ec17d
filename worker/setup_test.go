package worker_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/worker"
)

// bench is a queue, a client and a place to start workers in.
type bench struct {
	t         *testing.T
	rdb       redis.UniversalClient
	engine    string
	client    *job.Client
	inspector *asynq.Inspector
}

func newBench(t *testing.T, rdb redis.UniversalClient, engine string) *bench {
	return &bench{t: t, rdb: rdb, engine: engine, client: job.NewClient(rdb), inspector: asynq.NewInspectorFromRedisClient(rdb)}
}

type payload struct {
	N int `json:"n"`
}

var echo = job.Define[payload]("echo", job.Retry(func(int, error) time.Duration { return 0 }))

func (b *bench) enqueue(n int, opts ...job.Option) *job.Info {
	b.t.Helper()
	info, err := echo.Enqueue(b.t.Context(), b.client, payload{N: n}, opts...)
	if err != nil {
		b.t.Fatal(err)
	}
	return info
}

func (b *bench) config() worker.Config {
	log := slog.New(slog.NewTextHandler(b.t.Output(), nil)) // shown if the test fails
	return worker.Config{Engine: b.engine, Concurrency: 4, Grace: 5 * time.Second, Logger: log}
}

// start runs a worker until the test ends or stop is called; the channel gives Run's answer.
func (b *bench) start(cfg worker.Config, routes ...job.Route) (w *worker.Worker, stop func() error) {
	b.t.Helper()
	w, err := worker.New(b.rdb, cfg, routes...)
	if err != nil {
		b.t.Fatal(err)
	}
	return w, b.run(w)
}

func (b *bench) run(w *worker.Worker) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	var answer error
	var stopped atomic.Bool
	stop = func() error {
		cancel()
		if stopped.CompareAndSwap(false, true) {
			select {
			case answer = <-done:
			case <-time.After(30 * time.Second):
				b.t.Error("the worker does not stop")
			}
		}
		return answer
	}
	b.t.Cleanup(func() {
		if err := stop(); err != nil && !errors.Is(err, worker.ErrJobsDied) {
			b.t.Errorf("the worker ended with %v", err)
		}
	})
	return stop
}

// eventually waits for a condition: it polls, since Redis does not tell.
func (b *bench) eventually(what string, ok func() bool) {
	b.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			b.t.Fatalf("not within 20s: %s", what)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-b.t.Context().Done():
			b.t.FailNow()
		}
	}
}

func (b *bench) state(info *job.Info) string {
	got, err := b.inspector.GetTaskInfo(info.Queue, info.ID)
	switch {
	case errors.Is(err, asynq.ErrTaskNotFound):
		return "gone"
	case err != nil:
		b.t.Fatal(err)
	}
	return got.State.String()
}

func (b *bench) info(i *job.Info) *asynq.TaskInfo {
	b.t.Helper()
	got, err := b.inspector.GetTaskInfo(i.Queue, i.ID)
	if err != nil {
		b.t.Fatal(err)
	}
	return got
}

// receive waits for a value that a handler sends.
func receive[T any](b *bench, from <-chan T) T {
	b.t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(20 * time.Second):
		b.t.Fatal("the handler was not called within 20s")
		panic("unreachable")
	}
}
