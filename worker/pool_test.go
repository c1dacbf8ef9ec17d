package worker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/queue"
	"github.com/bellhop-dev/bellhop/worker"
)

func TestMain(m *testing.M) {
	// A closed client whose server is away ends its last attempt to dial within a second.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

func newPoolBench(t *testing.T) *bench {
	t.Helper()
	return newBench(t, redistest.New(t), worker.EngineBellhop)
}

// journal keeps a worker's log lines.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) count(text string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.text.String(), text)
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

// atRest asserts that nothing runs and nobody owns anything.
func (b *bench) atRest(queues ...string) {
	b.t.Helper()
	b.eventually("nothing runs", func() bool {
		for _, q := range queues {
			if b.rdb.Exists(b.t.Context(), wire.ActiveKey(q), wire.LeaseKey(q)).Val() > 0 {
				return false
			}
		}
		return true
	})
}

// An idle worker asks Redis for about as little as a stock one does, though a job waits in a paused queue.
func TestIdleWorkerIsQuiet(t *testing.T) {
	t.Parallel()
	var benches [2]*bench
	for i, engine := range []string{worker.EngineBellhop, worker.EngineAsynq} {
		b := newBench(t, redistest.New(t), engine)
		benches[i] = b
		for _, q := range []string{"a", "b", "c"} {
			b.enqueue(1, job.Queue(q))
		}
		if err := b.inspector.PauseQueue("b"); err != nil {
			t.Fatal(err)
		}
	}
	ours, stocks := benches[0], benches[1]
	var runs atomic.Int32
	cfg := ours.config()
	cfg.Queues = []worker.Queue{{Name: "a", Weight: 1}, {Name: "b", Weight: 1}, {Name: "c", Weight: 1}}
	ours.start(cfg, echo.HandledBy(func(context.Context, payload) error { runs.Add(1); return nil }))
	server := asynq.NewServerFromRedisClient(stocks.rdb, asynq.Config{Queues: map[string]int{"a": 1, "b": 1, "c": 1}, LogLevel: asynq.FatalLevel})
	if err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { runs.Add(1); return nil })); err != nil {
		t.Fatal(err)
	}
	defer server.Shutdown()
	ours.eventually("the jobs that may run have run", func() bool { return runs.Load() == 4 })
	ours.atRest("a", "c")

	// Stock's pauses are random, what is rare falls into a window or not, and a loaded machine adds commands, never takes some: the best
	// of three windows counts.
	const watch = 15 * time.Second // longer than every pause of either
	for window := 1; ; window++ {
		before, stockBefore := commands(t, ours.rdb), commands(t, stocks.rdb)
		<-time.After(watch)
		rate := float64(commands(t, ours.rdb)-before) / watch.Seconds()
		stockRate := float64(commands(t, stocks.rdb)-stockBefore) / watch.Seconds()
		t.Logf("commands a second, those in scripts included: %.1f, stock %.1f", rate, stockRate)
		if rate <= 1.1*stockRate {
			break
		}
		if window == 3 {
			t.Fatalf("an idle worker costs %.1f commands a second, a stock one %.1f", rate, stockRate)
		}
	}
	if runs.Load() != 4 {
		t.Errorf("%d jobs ran, some of them in a paused queue", runs.Load())
	}
}

// commands is how many commands the server has run, those within scripts included.
func commands(t *testing.T, rdb redis.UniversalClient) (sum int) {
	t.Helper()
	for line := range strings.Lines(rdb.Info(t.Context(), "commandstats").Val()) {
		var calls int
		if _, rest, _ := strings.Cut(line, ":"); rest != "" {
			if _, err := fmt.Sscanf(rest, "calls=%d", &calls); err == nil {
				sum += calls
			}
		}
	}
	return sum
}

// What was fetched and can't start goes back in its place, unspent.
func TestStopInTheMiddleKeepsTheOrder(t *testing.T) {
	t.Parallel()
	b := newPoolBench(t)
	const jobs = 300
	for n := range jobs {
		b.enqueue(n, job.ID(fmt.Sprintf("job-%03d", n)), job.MaxRetry(0))
	}
	cfg := b.config()
	cfg.Concurrency, cfg.Grace = 16, 50*time.Millisecond
	var finished counts
	var started atomic.Int32
	enough := make(chan struct{})
	_, stop := b.start(cfg, echo.HandledBy(func(ctx context.Context, p payload) error {
		if started.Add(1) == 120 {
			close(enough)
		}
		if p.N > 100 {
			<-ctx.Done() // these run when the worker stops
			return ctx.Err()
		}
		finished.add(fmt.Sprintf("job-%03d", p.N))
		return nil
	}))
	b.eventually("the slots are full of jobs that wait", func() bool { return finished.total() == 101 && started.Load() == 117 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	b.atRest("default")
	pending, err := b.rdb.LRange(t.Context(), wire.PendingKey("default"), 0, -1).Result()
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(pending) // taken from the right
	if len(pending) != jobs-101 || !slices.IsSorted(pending) || pending[0] != "job-101" {
		t.Errorf("%d jobs are left, in this order: %v", len(pending), pending)
	}
	for _, id := range pending[:20] {
		if got, err := b.inspector.GetTaskInfo("default", id); err != nil || got.Retried != 0 || got.State != asynq.TaskStatePending {
			t.Errorf("job %s: %+v, %v", id, got, err)
		}
	}
}

func TestCancelledJobIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := newBench(t, rdb, worker.EngineBellhop)
		info := b.enqueue(1)
		running, causes := make(chan struct{}, 1), make(chan error, 1)
		b.start(b.config(), echo.HandledBy(func(ctx context.Context, _ payload) error {
			running <- struct{}{}
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return ctx.Err()
		}))
		receive(b, running)
		b.eventually("the worker listens", func() bool {
			return rdb.PubSubNumSub(t.Context(), wire.CancelChannel).Val()[wire.CancelChannel] > 0
		})
		if err := b.inspector.CancelProcessing(info.ID); err != nil {
			t.Fatal(err)
		}
		if cause := receive(b, causes); !errors.Is(cause, worker.ErrCancelled) {
			t.Errorf("the context ended with %v", cause)
		}
		b.eventually("the job is archived", func() bool { return b.state(info) == "archived" })
		if got := b.info(info); got.LastErr != "cancelled" || got.Retried != 0 {
			t.Errorf("%q after %d retries", got.LastErr, got.Retried)
		}
		if end := rdb.HGet(t.Context(), wire.JobKey("default", info.ID), "bellhop_end").Val(); end != "cancelled" {
			t.Errorf("its end is marked %q", end)
		}
	})
}

// A handler that ignores its context keeps its slot and its job, is shown once with its stack, and has timed out.
func TestStuckHandlerHoldsItsSlot(t *testing.T) {
	t.Parallel()
	b := newPoolBench(t)
	var lines journal
	stuck := b.enqueue(-1, job.Timeout(100*time.Millisecond), job.MaxRetry(0))
	cfg := b.config()
	cfg.Concurrency, cfg.Logger = 1, lines.logger()
	release := make(chan struct{})
	var running, most atomic.Int32
	w, _ := b.start(cfg, echo.HandledBy(func(_ context.Context, p payload) error {
		most.Store(max(most.Load(), running.Add(1)))
		defer running.Add(-1)
		if p.N < 0 {
			ignoreTheContext(release)
		}
		return nil
	}))
	b.eventually("the handler runs", func() bool { return running.Load() == 1 })
	for n := range 5 {
		b.enqueue(n)
	}
	b.eventually("the handler is shown", func() bool { return lines.count("ignoreTheContext") == 1 })
	b.eventually("stock tools show its job", func() bool {
		servers, err := b.inspector.Servers()
		return err == nil && len(servers) == 1 && len(servers[0].ActiveWorkers) == 1 && servers[0].ActiveWorkers[0].TaskID == stuck.ID
	})
	if got := b.state(stuck); got != "active" || most.Load() != 1 {
		t.Errorf("the stuck job is %s, %d ran at once", got, most.Load())
	}
	b.eventually("the worker is not healthy", func() bool { return w.Healthy() != nil })
	close(release)
	b.atRest("default")
	b.eventually("the worker is healthy again", func() bool { return w.Healthy() == nil })
	b.eventually("the stuck job is dead", func() bool { return b.state(stuck) == "archived" })
	if got := b.info(stuck).LastErr; !strings.HasPrefix(got, worker.ErrTimeout.Error()) {
		t.Errorf("its error is %q", got)
	}
	if n := lines.count("ignores that its time"); n != 1 || most.Load() != 1 {
		t.Errorf("told %d times, %d ran at once", n, most.Load())
	}
}

func ignoreTheContext(release <-chan struct{}) { <-release }

// A job that was given to another while its handler runs: the handler is told, and its word no longer counts.
func TestLostJobIsCancelled(t *testing.T) {
	t.Parallel()
	b := newPoolBench(t)
	var lines journal
	info := b.enqueue(1, job.Retention(time.Minute))
	running, causes := make(chan struct{}, 2), make(chan error, 2)
	cfg := b.config()
	cfg.Logger = lines.logger()
	var attempts atomic.Int32
	w, _ := b.start(cfg, echo.HandledBy(func(ctx context.Context, _ payload) error {
		if attempts.Add(1) > 1 {
			return nil
		}
		running <- struct{}{}
		<-ctx.Done()
		causes <- context.Cause(ctx)
		return job.Discard("a zombie's word")
	}))
	receive(b, running)
	// What a reaper does that takes this worker for dead.
	client := queue.New(b.rdb)
	b.eventually("the job is taken away", func() bool {
		beats, err := client.Beats(t.Context(), "default")
		if err != nil || len(beats) != 1 || beats[0].Worker != w.ID() {
			return false
		}
		jobs, _, err := client.Reap(t.Context(), "default", beats[0], 3)
		return err == nil && len(jobs) == 1
	})
	if cause := receive(b, causes); !errors.Is(cause, worker.ErrLostOwnership) {
		t.Errorf("the context ended with %v", cause)
	}
	b.eventually("the job runs again and is done", func() bool { return b.state(info) == "completed" })
	if got := b.info(info); got.Retried != 0 || got.LastErr != "" || attempts.Load() != 2 {
		t.Errorf("%d retries, error %q, %d attempts", got.Retried, got.LastErr, attempts.Load())
	}
}

// Redis away for a while, with jobs running: told once, ends written when it is back, each job run once.
func TestOutageAndReturn(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.WithAOF(), redistest.WithConfig("appendfsync", "always"))
	b := newBench(t, server.Client(), worker.EngineBellhop)
	var lines journal
	const jobs = 20
	for n := range jobs {
		b.enqueue(n)
	}
	cfg := b.config()
	cfg.Concurrency, cfg.Logger = jobs/2, lines.logger()
	var runs counts
	var running atomic.Int32
	release := make(chan struct{})
	b.start(cfg, echo.HandledBy(func(_ context.Context, p payload) error {
		running.Add(1)
		<-release
		runs.add(fmt.Sprint(p.N))
		return nil
	}))
	b.eventually("the slots are full", func() bool { return running.Load() == jobs/2 })
	server.Kill()
	close(release)
	b.eventually("the outage is told", func() bool { return lines.count("Redis fails") == 1 })
	server.Restart()
	b.eventually("all jobs are done", func() bool {
		q, err := b.inspector.GetQueueInfo("default")
		return err == nil && q.Size == 0 && q.Processed == jobs
	})
	b.eventually("the return is told", func() bool { return lines.count("Redis answers again") >= 1 })
	if len(runs.runs) != jobs || runs.total() != jobs {
		t.Errorf("%d jobs ran %d times", len(runs.runs), runs.total())
	}
	b.atRest("default")
}

// A handler that ends its goroutine fails; the pool goes on.
func TestHandlerMayEndItsGoroutine(t *testing.T) {
	t.Parallel()
	b := newPoolBench(t)
	info := b.enqueue(-1, job.MaxRetry(0))
	cfg := b.config()
	cfg.Concurrency = 1
	b.start(cfg, echo.HandledBy(func(_ context.Context, p payload) error {
		if p.N < 0 {
			runtime.Goexit()
		}
		return nil
	}))
	b.eventually("the job is dead", func() bool { return b.state(info) == "archived" })
	next := b.enqueue(1)
	b.eventually("the next one is done", func() bool { return b.state(next) == "gone" })
}

// Stock handlers' words keep their meaning.
func TestStockVerdicts(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{worker.EngineBellhop, worker.EngineAsynq} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, redistest.New(t), engine)
			skip := b.enqueue(1)
			revoke := b.enqueue(2)
			b.start(b.config(), worker.Asynq("echo", asynq.HandlerFunc(func(_ context.Context, task *asynq.Task) error {
				if strings.Contains(string(task.Payload()), "1") {
					return fmt.Errorf("no use: %w", asynq.SkipRetry)
				}
				return asynq.RevokeTask
			})))
			b.eventually("one is dead, one is gone", func() bool { return b.state(skip) == "archived" && b.state(revoke) == "gone" })
			if got := b.info(skip); got.Retried != 0 || got.LastErr != "no use: skip retry for the task" {
				t.Errorf("%q after %d retries", got.LastErr, got.Retried)
			}
		})
	}
}

// The server list of stock tools shows the worker and what it runs, and forgets it when it goes.
func TestStockToolsListTheWorker(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := newBench(t, rdb, worker.EngineBellhop)
		release := make(chan struct{})
		cfg := b.config()
		cfg.Queues = []worker.Queue{{Name: "default", Weight: 2}, {Name: "low", Weight: 1}}
		large := job.Define[string]("large")
		info, err := large.Enqueue(t.Context(), b.client, strings.Repeat("x", 100_000))
		if err != nil {
			t.Fatal(err)
		}
		w, stop := b.start(cfg, large.HandledBy(func(context.Context, string) error { <-release; return nil }))
		b.eventually("the job is listed", func() bool {
			servers, err := b.inspector.Servers()
			if err != nil || len(servers) != 1 || len(servers[0].ActiveWorkers) != 1 {
				return false
			}
			s, run := servers[0], servers[0].ActiveWorkers[0]
			if s.ID != w.ID() || s.Status != "active" || s.Concurrency != 4 || s.Queues["default"] != 2 || s.Queues["low"] != 1 {
				t.Fatalf("%+v", s)
			}
			if run.TaskID != info.ID || run.TaskType != "large" || run.Queue != "default" || len(run.TaskPayload) != 1<<10 || run.Deadline.Before(time.Now()) {
				t.Fatalf("%+v", run)
			}
			return true
		})
		close(release)
		if err := stop(); err != nil {
			t.Error(err)
		}
		if servers, err := b.inspector.Servers(); err != nil || len(servers) != 0 {
			t.Errorf("a stopped worker is listed: %v, %v", servers, err)
		}
	})
}
