package worker_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/worker"
)

// One long job and 1,000 short ones, two workers with 8 slots: the long one holds one slot and nobody else up.
func TestNoShortJobWaitsBehindALongOne(t *testing.T) {
	t.Parallel()
	b := newPoolBench(t)
	b.enqueue(-1)
	const short = 1000
	var requests []job.Request
	for n := range short {
		r, err := echo.Request(payload{N: n})
		if err != nil {
			t.Fatal(err)
		}
		requests = append(requests, r)
	}
	for _, r := range b.client.EnqueueMany(t.Context(), requests) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	release := make(chan struct{})
	var ran, running, most atomic.Int32
	cfg := b.config()
	cfg.Concurrency = 8
	for range 2 {
		b.start(cfg, echo.HandledBy(func(_ context.Context, p payload) error {
			now := running.Add(1)
			defer running.Add(-1)
			for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
			}
			if p.N < 0 {
				<-release
				return nil
			}
			ran.Add(1)
			return nil
		}))
	}
	b.eventually("every short job has run beside the long one", func() bool { return ran.Load() == short })
	close(release)
	b.atRest("default")
	if most.Load() > 16 {
		t.Errorf("%d jobs ran at once in 16 slots", most.Load())
	}
}

// Weights are shares of the jobs started while all queues have some, as stock asynq's.
func TestWeightsAreStocks(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{worker.EngineBellhop, worker.EngineAsynq} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			got := startedByQueue(t, engine, false)
			for q, want := range map[string]int{"high": 600, "mid": 300, "low": 100} {
				// Five standard deviations of 1,000 draws.
				if off := got[q] - want; off > 80 || off < -80 {
					t.Errorf("of the first 1,000 jobs %d were of queue %s, want some %d: %v", got[q], q, want, got)
				}
			}
		})
	}
}

func TestStrictPriorityIsStocks(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{worker.EngineBellhop, worker.EngineAsynq} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			// What was taken last may start before what was taken just before it: as many as there are slots.
			if got := startedByQueue(t, engine, true); got["high"] < 1000-8 {
				t.Errorf("of the first 1,000 jobs not all were of the heaviest queue: %v", got)
			}
		})
	}
}

// startedByQueue counts the first 1,000 jobs that start, while three queues have more than that.
func startedByQueue(t *testing.T, engine string, strict bool) map[string]int {
	b := newBench(t, redistest.New(t), engine)
	weights := []worker.Queue{{Name: "low", Weight: 1}, {Name: "high", Weight: 6}, {Name: "mid", Weight: 3}}
	var requests []job.Request
	for _, q := range weights {
		for range 1000 {
			r, err := echo.Request(payload{}, job.Queue(q.Name))
			if err != nil {
				t.Fatal(err)
			}
			requests = append(requests, r)
		}
	}
	for _, r := range b.client.EnqueueMany(t.Context(), requests) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	cfg := b.config()
	cfg.Concurrency, cfg.Queues, cfg.StrictPriority = 8, weights, strict
	var mu sync.Mutex
	started := make(map[string]int)
	total := 0
	enough := make(chan struct{})
	_, stop := b.start(cfg, echo.HandledBy(func(ctx context.Context, _ payload) error {
		j, _ := job.FromContext(ctx)
		mu.Lock()
		defer mu.Unlock()
		if total == 1000 {
			return nil
		}
		started[j.Queue]++
		if total++; total == 1000 {
			close(enough)
		}
		return nil
	}))
	receive(b, enough)
	if err := stop(); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	return started
}
