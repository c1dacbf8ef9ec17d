package main

import (
	"context"
	"encoding/json"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
)

// stockAsynq is asynq as its users have it: no bellhop in it, and its defaults, but for the log's level.
type stockAsynq struct{}

func (stockAsynq) open(_ context.Context, addr string) (producer, error) {
	return asynqProducer{asynq.NewClient(asynq.RedisClientOpt{Addr: addr})}, nil
}

func (stockAsynq) worker(_ context.Context, addr string, spec workerSpec, handle func(int64)) (runnable, error) {
	server := asynq.NewServer(asynq.RedisClientOpt{Addr: addr}, asynq.Config{
		Concurrency: spec.Concurrency, Queues: spec.Queues, LogLevel: asynq.ErrorLevel,
	})
	return func(ctx context.Context) error {
		err := server.Start(asynq.HandlerFunc(func(_ context.Context, task *asynq.Task) error {
			var p payload
			if err := json.Unmarshal(task.Payload(), &p); err != nil {
				return err
			}
			handle(p.N)
			return nil
		}))
		if err != nil {
			return err
		}
		<-ctx.Done()
		server.Shutdown()
		return nil
	}, nil
}

type asynqProducer struct{ client *asynq.Client }

func (p asynqProducer) enqueue(ctx context.Context, queue string, n int64) error {
	task := asynq.NewTask(taskName, newPayload(n).encode())
	var err error
	if queue == defaultQueue {
		_, err = p.client.EnqueueContext(ctx, task)
	} else {
		_, err = p.client.EnqueueContext(ctx, task, asynq.Queue(queue))
	}
	return err
}

func (p asynqProducer) schedule(ctx context.Context, n int64, at time.Time) error {
	_, err := p.client.EnqueueContext(ctx, asynq.NewTask(taskName, newPayload(n).encode()), asynq.ProcessAt(at))
	return err
}

// bulk spreads the jobs over 64 goroutines: asynq's client has no call for many jobs, and this is the fastest way with it. A loop in
// one goroutine reaches less than half.
func (p asynqProducer) bulk(ctx context.Context, first int64, count int) error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	for range min(count, producers) {
		all.Go(func() {
			for failed.Load() == nil {
				i := next.Add(1) - 1
				if i >= int64(count) {
					return
				}
				if err := p.enqueue(ctx, defaultQueue, first+i); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

func (p asynqProducer) close() { _ = p.client.Close() }
