package main

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/worker"
	"github.com/redis/go-redis/v9"
)

// bellhopEngine is bellhop through its public API, its worker on the engine of that name.
type bellhopEngine struct{ inner string }

var noop = job.Define[payload](taskName)

func checkBellhop(inner string) error { return worker.Config{Engine: inner}.Validate() }

func (bellhopEngine) open(_ context.Context, addr string) (producer, error) {
	rdb := redis.NewClient(&redis.Options{Addr: addr})
	return bellhopProducer{rdb, job.NewClient(rdb)}, nil
}

func (e bellhopEngine) worker(_ context.Context, addr string, spec workerSpec, handle func(int64)) (runnable, error) {
	rdb := redis.NewClient(&redis.Options{Addr: addr})
	names, weights := spec.weights()
	cfg := worker.Config{
		Engine: e.inner, Concurrency: spec.Concurrency,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	}
	for _, name := range names {
		cfg.Queues = append(cfg.Queues, worker.Queue{Name: name, Weight: weights[name]})
	}
	w, err := worker.New(rdb, cfg, noop.HandledBy(func(_ context.Context, p payload) error {
		handle(p.N)
		return nil
	}))
	if err != nil {
		return nil, err
	}
	return w.Run, nil
}

type bellhopProducer struct {
	rdb    *redis.Client
	client *job.Client
}

func (p bellhopProducer) enqueue(ctx context.Context, queue string, n int64) error {
	var err error
	if queue == defaultQueue {
		_, err = noop.Enqueue(ctx, p.client, newPayload(n))
	} else {
		_, err = noop.Enqueue(ctx, p.client, newPayload(n), job.Queue(queue))
	}
	return err
}

func (p bellhopProducer) schedule(ctx context.Context, n int64, at time.Time) error {
	_, err := noop.Enqueue(ctx, p.client, newPayload(n), job.At(at))
	return err
}

func (p bellhopProducer) bulk(ctx context.Context, first int64, count int) error {
	payloads := make([]payload, count)
	for i := range payloads {
		payloads[i] = newPayload(first + int64(i))
	}
	for _, result := range noop.EnqueueMany(ctx, p.client, payloads) {
		if result.Err != nil {
			return result.Err
		}
	}
	return nil
}

func (p bellhopProducer) close() { _ = p.rdb.Close() }
