package worker_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/worker"
)

// BenchmarkPickUp pushes one job at a time, with a stock client, to an idle worker: `-benchtime 500x`. The time runs from before
// the push to the handler's first line.
func BenchmarkPickUp(b *testing.B) {
	rdb := redistest.New(b)
	started := make(chan time.Time, 1)
	ctx, cancel := context.WithCancel(b.Context())
	w, err := worker.New(rdb, worker.Config{Queues: []worker.Queue{{Name: "default", Weight: 2}, {Name: "low", Weight: 1}, {Name: "more", Weight: 1}}},
		job.Route{Definition: job.Definition{Name: "noop"}, Handle: func(context.Context, *job.Job) error { started <- time.Now(); return nil }})
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	client := asynq.NewClientFromRedisClient(rdb)
	took := make([]time.Duration, b.N)
	for i := range took {
		<-time.After(10 * time.Millisecond) // the worker is idle again
		pushed := time.Now()
		if _, err := client.Enqueue(asynq.NewTask("noop", nil)); err != nil {
			b.Fatal(err)
		}
		took[i] = (<-started).Sub(pushed)
	}
	b.StopTimer()
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
	slices.Sort(took)
	for _, p := range []int{50, 99} {
		b.ReportMetric(float64(took[(len(took)-1)*p/100].Microseconds()), fmt.Sprintf("p%d-µs", p))
	}
}

// Two pools, two stock servers and two producers on one queue: 10,000 jobs, each runs once, and the books are right.
func TestMixedFleetRunsEachJobOnce(t *testing.T) {
	t.Parallel()
	b := newPoolBench(t)
	const jobs = 10_000
	var runs [jobs]atomic.Int32
	var ours, theirs atomic.Int32
	count := func(fleet *atomic.Int32, id string) error {
		var n int
		if _, err := fmt.Sscanf(id, "job-%d", &n); err != nil {
			return job.Discard(err.Error())
		}
		fleet.Add(1)
		runs[n].Add(1)
		return nil
	}
	for range 2 {
		stock := asynq.NewServerFromRedisClient(b.rdb, asynq.Config{Concurrency: 8, TaskCheckInterval: 20 * time.Millisecond, LogLevel: asynq.ErrorLevel})
		if err := stock.Start(asynq.HandlerFunc(func(ctx context.Context, _ *asynq.Task) error {
			id, _ := asynq.GetTaskID(ctx)
			return count(&theirs, id)
		})); err != nil {
			t.Fatal(err)
		}
		defer stock.Shutdown()
		cfg := b.config()
		cfg.Concurrency = 8
		b.start(cfg, echo.HandledBy(func(ctx context.Context, _ payload) error {
			j, _ := job.FromContext(ctx)
			return count(&ours, j.ID)
		}))
	}
	var producers sync.WaitGroup
	producers.Go(func() {
		for from := 0; from < jobs; from += 200 {
			var requests []job.Request
			for n := from; n < from+200; n += 2 {
				r, err := echo.Request(payload{N: n}, job.ID(fmt.Sprint("job-", n)))
				if err != nil {
					t.Error(err)
				}
				requests = append(requests, r)
			}
			for _, r := range b.client.EnqueueMany(t.Context(), requests) {
				if r.Err != nil {
					t.Error(r.Err)
				}
			}
		}
	})
	producers.Go(func() {
		client := asynq.NewClientFromRedisClient(b.rdb)
		for n := 1; n < jobs; n += 2 {
			if _, err := client.Enqueue(asynq.NewTask("echo", []byte(`{"n":1}`)), asynq.TaskID(fmt.Sprint("job-", n))); err != nil {
				t.Error(err)
			}
		}
	})
	producers.Wait()
	b.eventually("the queue is empty", func() bool {
		q, err := b.inspector.GetQueueInfo("default")
		return err == nil && q.Size == 0 && q.Processed == jobs && q.Failed == 0
	})
	for n := range runs {
		if got := runs[n].Load(); got != 1 {
			t.Errorf("job %d ran %d times", n, got)
		}
	}
	if ours.Load() == 0 || theirs.Load() == 0 {
		t.Errorf("one fleet took nothing: ours %d, stock %d", ours.Load(), theirs.Load())
	}
	b.atRest("default")
}

// A push of as many jobs as there are idle workers with one slot brings all of them to work: who has taken the last slot's job tells the next.
func TestABacklogWakesTheWholeFleet(t *testing.T) {
	t.Parallel()
	b := newPoolBench(t)
	const fleet, rounds = 4, 20
	started, goOn := make(chan struct{}, fleet), make(chan struct{})
	handler := echo.HandledBy(func(context.Context, payload) error {
		started <- struct{}{}
		<-goOn
		return nil
	})
	for range fleet {
		cfg := b.config()
		cfg.Concurrency = 1
		b.start(cfg, handler)
	}
	for round := range rounds {
		b.eventually("all of them stand in line", func() bool {
			return strings.Count(b.rdb.ClientList(t.Context()).Val(), "cmd=blmove")+strings.Count(b.rdb.ClientList(t.Context()).Val(), "cmd=blpop") >= fleet
		})
		for _, r := range echo.EnqueueMany(t.Context(), b.client, make([]payload, fleet)) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		for n := range fleet {
			select {
			case <-started:
			case <-time.After(5 * time.Second): // sooner than a watch that nobody hands on is made anew
				t.Fatalf("round %d: %d of %d idle workers came", round, n, fleet)
			}
		}
		for range fleet {
			goOn <- struct{}{}
		}
	}
}
