package main

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
)

// riverEngine is River on PostgreSQL. Its defaults fetch ten times a second at most; it is measured with the shorter waits
// that its own benchmark command sets.
type riverEngine struct{}

const (
	riverCooldown = 2 * time.Millisecond
	riverPoll     = 20 * time.Millisecond
)

type riverArgs payload

// Kind names the task.
func (riverArgs) Kind() string { return taskName }

type riverWorker struct {
	river.WorkerDefaults[riverArgs]
	handle func(int64)
}

// Work runs a job.
func (w *riverWorker) Work(_ context.Context, job *river.Job[riverArgs]) error {
	w.handle(job.Args.N)
	return nil
}

func (riverEngine) open(ctx context.Context, addr string) (producer, error) {
	pool, err := pgxpool.New(ctx, addr)
	if err != nil {
		return nil, err
	}
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Logger: riverLog()})
	if err != nil {
		pool.Close()
		return nil, err
	}
	return riverProducer{pool, client}, nil
}

func (riverEngine) worker(ctx context.Context, addr string, spec workerSpec, handle func(int64)) (runnable, error) {
	pool, err := pgxpool.New(ctx, addr)
	if err != nil {
		return nil, err
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, &riverWorker{handle: handle})
	names, _ := spec.weights()
	queues := make(map[string]river.QueueConfig, len(names))
	for _, name := range names {
		queues[name] = river.QueueConfig{MaxWorkers: spec.Concurrency}
	}
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		Queues: queues, Workers: workers, Logger: riverLog(),
		FetchCooldown: riverCooldown, FetchPollInterval: riverPoll,
	})
	if err != nil {
		pool.Close()
		return nil, err
	}
	return func(ctx context.Context) error {
		defer pool.Close()
		if err := client.Start(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		<-ctx.Done()
		return client.Stop(context.WithoutCancel(ctx))
	}, nil
}

func riverLog() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
}

type riverProducer struct {
	pool   *pgxpool.Pool
	client *river.Client[pgx.Tx]
}

func (p riverProducer) enqueue(ctx context.Context, queue string, n int64) error {
	_, err := p.client.Insert(ctx, riverArgs(newPayload(n)), &river.InsertOpts{Queue: queue})
	return err
}

func (p riverProducer) schedule(ctx context.Context, n int64, at time.Time) error {
	_, err := p.client.Insert(ctx, riverArgs(newPayload(n)), &river.InsertOpts{ScheduledAt: at})
	return err
}

func (p riverProducer) bulk(ctx context.Context, first int64, count int) error {
	params := make([]river.InsertManyParams, count)
	for i := range params {
		params[i].Args = riverArgs(newPayload(first + int64(i)))
	}
	_, err := p.client.InsertManyFast(ctx, params)
	return err
}

func (p riverProducer) close() { p.pool.Close() }
