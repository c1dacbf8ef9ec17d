package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/worker"
)

// Every engine keeps one contract: this suite. It runs over each of them, on real Redis and on the embedded one.
func TestConformance(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{worker.EngineBellhop, worker.EngineAsynq} {
		for name, test := range map[string]func(*testing.T, *bench){
			"runs a job once":                   runsOnce,
			"tells the handler its job":         tellsTheJob,
			"routes by the exact name":          routesExactly,
			"retries a failure":                 retriesFailures,
			"waits as RetryIn says, not less":   waitsAsTold,
			"archives when retries are used up": archives,
			"discards without a retry":          discards,
			"snoozes without spending":          snoozes,
			"turns panics into errors":          survivesPanics,
			"survives a Retry that panics":      survivesRetry,
			"survives an unreadable error":      survivesErrors,
			"ends an attempt at its timeout":    timesOut,
			"keeps the result":                  keepsResults,
			"starts a scheduled job on time":    startsOnTime,
			"puts off an unknown task unspent":  putsOffUnknown,
			"puts off what a mux does not know": putsOffUnmuxed,
			"lets running jobs finish":          finishesGracefully,
			"hands back what can't finish":      handsBack,
			"leaves a paused queue alone":       leavesPaused,
			"runs stock handlers unchanged":     runsStockHandlers,
			"aggregates groups":                 aggregates,
			"drains in a burst":                 drains,
			"fails a burst with dead jobs":      failsBurst,
		} {
			t.Run(engine+"/"+name, func(t *testing.T) {
				redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
					test(t, newBench(t, rdb, engine))
				})
			})
		}
	}
}

func runsOnce(t *testing.T, b *bench) {
	var runs [50]atomic.Int32
	for n := range runs {
		b.enqueue(n)
	}
	b.start(b.config(), echo.HandledBy(func(_ context.Context, p payload) error {
		runs[p.N].Add(1)
		return nil
	}))
	b.eventually("all jobs are gone", func() bool {
		q, err := b.inspector.GetQueueInfo("default")
		return err == nil && q.Size == 0 && q.Processed == len(runs)
	})
	for n := range runs {
		if got := runs[n].Load(); got != 1 {
			t.Errorf("job %d ran %d times", n, got)
		}
	}
}

func tellsTheJob(t *testing.T, b *bench) {
	jobs := make(chan job.Job, 2)
	event := job.Event{ID: "e1", Source: "/mail", Type: "mail.received", Trigger: "rule", StreamID: "1700000000000-3", StoredAt: time.UnixMilli(1700000000000)}
	info := b.enqueue(1, job.MaxRetry(3), job.Header("trace", "abc"), job.ForEvent(event))
	b.start(b.config(), echo.HandledBy(func(ctx context.Context, _ payload) error {
		j, ok := job.FromContext(ctx)
		if !ok {
			return job.Discard("no job in the context")
		}
		jobs <- *j
		if j.Attempt == 1 {
			return errors.New("once more")
		}
		return nil
	}))
	for attempt := 1; attempt <= 2; attempt++ {
		j := receive(b, jobs)
		if j.ID != info.ID || j.Task != "echo" || j.Queue != "default" || j.Attempt != attempt || j.MaxRetry != 3 {
			t.Errorf("attempt %d: %+v", attempt, j)
		}
		if len(j.Headers) != 1 || j.Headers["trace"] != "abc" {
			t.Errorf("headers %v", j.Headers)
		}
		if e := j.Event; e == nil || e.ID != "e1" || e.Source != "/mail" || e.Type != "mail.received" || e.Trigger != "rule" {
			t.Errorf("event %+v", j.Event)
		}
	}
}

func routesExactly(t *testing.T, b *bench) {
	longer := job.Define[payload]("echoing")
	got := make(chan string, 2)
	b.start(b.config(),
		echo.HandledBy(func(context.Context, payload) error { got <- "echo"; return nil }),
		longer.HandledBy(func(context.Context, payload) error { got <- "echoing"; return nil }))
	if _, err := longer.Enqueue(t.Context(), b.client, payload{}); err != nil {
		t.Fatal(err)
	}
	if name := receive(b, got); name != "echoing" {
		t.Errorf("echoing went to the handler of %s", name)
	}
}

func retriesFailures(t *testing.T, b *bench) {
	info := b.enqueue(1)
	var attempts atomic.Int32
	b.start(b.config(), echo.HandledBy(func(context.Context, payload) error {
		if attempts.Add(1) < 3 {
			return errors.New("not yet")
		}
		return nil
	}))
	b.eventually("the job is done", func() bool { return b.state(info) == "gone" })
	if got := attempts.Load(); got != 3 {
		t.Errorf("%d attempts", got)
	}
	if q, err := b.inspector.GetQueueInfo("default"); err != nil || q.Failed != 2 || q.Processed != 3 {
		t.Errorf("counters: %+v, %v", q, err)
	}
}

func waitsAsTold(t *testing.T, b *bench) {
	const wait = 1200 * time.Millisecond
	times := make(chan time.Time, 2)
	b.enqueue(1)
	b.start(b.config(), echo.HandledBy(func(ctx context.Context, _ payload) error {
		times <- time.Now()
		if j, _ := job.FromContext(ctx); j.Attempt == 1 {
			return job.RetryIn(wait, errors.New("later"))
		}
		return nil
	}))
	if first, second := receive(b, times), receive(b, times); second.Sub(first) < wait {
		t.Errorf("the second attempt came after %v, not %v", second.Sub(first), wait)
	}
}

func archives(t *testing.T, b *bench) {
	info := b.enqueue(1, job.MaxRetry(1))
	b.start(b.config(), echo.HandledBy(func(context.Context, payload) error { return errors.New("never works") }))
	b.eventually("the job is dead", func() bool { return b.state(info) == "archived" })
	if got := b.info(info); got.LastErr != "never works" || got.Retried != 1 {
		t.Errorf("%q after %d retries", got.LastErr, got.Retried)
	}
}

func discards(t *testing.T, b *bench) {
	info := b.enqueue(1)
	b.start(b.config(), echo.HandledBy(func(context.Context, payload) error { return job.Discard("user was deleted") }))
	b.eventually("the job is dead", func() bool { return b.state(info) == "archived" })
	if got := b.info(info); got.LastErr != "discarded: user was deleted" || got.Retried != 0 {
		t.Errorf("%q after %d retries", got.LastErr, got.Retried)
	}
}

func snoozes(t *testing.T, b *bench) {
	info := b.enqueue(1, job.MaxRetry(1), job.Retention(time.Minute))
	var attempts atomic.Int32
	numbers := make(chan int, 4)
	b.start(b.config(), echo.HandledBy(func(ctx context.Context, _ payload) error {
		j, _ := job.FromContext(ctx)
		numbers <- j.Attempt
		if attempts.Add(1) <= 3 {
			return job.Snooze(0)
		}
		return nil
	}))
	b.eventually("the job is done", func() bool { return b.state(info) == "completed" })
	for range 4 {
		if n := <-numbers; n != 1 {
			t.Errorf("a snoozed job is at attempt %d", n)
		}
	}
	if got := b.info(info); got.Retried != 0 {
		t.Errorf("%d retries were spent", got.Retried)
	}
}

func survivesPanics(t *testing.T, b *bench) {
	info := b.enqueue(1, job.MaxRetry(0))
	b.start(b.config(), echo.HandledBy(func(context.Context, payload) error { panic("oh no") }))
	b.eventually("the job is dead", func() bool { return b.state(info) == "archived" })
	if got := b.info(info); got.LastErr != "panic: oh no" {
		t.Errorf("the error is %q", got.LastErr)
	}
}

func timesOut(t *testing.T, b *bench) {
	before := time.Now()
	info := b.enqueue(1, job.MaxRetry(0), job.Timeout(150*time.Millisecond))
	took := make(chan time.Duration, 1)
	causes := make(chan error, 1)
	b.start(b.config(), echo.HandledBy(func(ctx context.Context, _ payload) error {
		<-ctx.Done()
		took <- time.Since(before)
		causes <- context.Cause(ctx)
		return ctx.Err()
	}))
	if d := receive(b, took); d < 150*time.Millisecond {
		t.Errorf("the context ended %v after the job was made", d)
	}
	if cause := receive(b, causes); !errors.Is(cause, worker.ErrTimeout) {
		t.Errorf("its cause is %v", cause)
	}
	b.eventually("the job is dead", func() bool { return b.state(info) == "archived" })
}

func keepsResults(t *testing.T, b *bench) {
	info := b.enqueue(1, job.Retention(time.Minute))
	b.start(b.config(), echo.HandledBy(func(ctx context.Context, _ payload) error {
		j, _ := job.FromContext(ctx)
		return j.SetResult(map[string]int{"answer": 42})
	}))
	b.eventually("the job is completed", func() bool { return b.state(info) == "completed" })
	if got := string(b.info(info).Result); got != `{"answer":42}` {
		t.Errorf("the result is %q", got)
	}
}

func startsOnTime(t *testing.T, b *bench) {
	at := time.Now().Add(700 * time.Millisecond)
	started := make(chan time.Time, 1)
	b.enqueue(1, job.At(at))
	b.start(b.config(), echo.HandledBy(func(context.Context, payload) error { started <- time.Now(); return nil }))
	if got := receive(b, started); got.Before(at) {
		t.Errorf("started %v early", at.Sub(got))
	}
}

func putsOffUnknown(t *testing.T, b *bench) {
	info := b.enqueue(1, job.MaxRetry(2))
	b.start(b.config()) // serves no task at all
	b.eventually("the job is put off", func() bool { return b.state(info) == "retry" })
	if got := b.info(info); got.Retried != 0 || !strings.Contains(got.LastErr, "no handler") || time.Until(got.NextProcessAt) < 10*time.Second {
		t.Errorf("%+v", got)
	}
}

func finishesGracefully(t *testing.T, b *bench) {
	info := b.enqueue(1)
	running, finish := make(chan struct{}), make(chan struct{})
	_, stop := b.start(b.config(), echo.HandledBy(func(context.Context, payload) error {
		close(running)
		<-finish
		return nil
	}))
	receive(b, running)
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	select {
	case err := <-stopped:
		t.Fatal("the worker did not wait for its job:", err)
	case <-time.After(100 * time.Millisecond):
	}
	close(finish)
	if err := receive(b, stopped); err != nil {
		t.Error(err)
	}
	if got := b.state(info); got != "gone" {
		t.Errorf("the job is %s", got)
	}
}

func handsBack(t *testing.T, b *bench) {
	info := b.enqueue(1, job.MaxRetry(0))
	running, ended := make(chan struct{}), make(chan error, 1)
	cfg := b.config()
	cfg.Grace = 100 * time.Millisecond
	_, stop := b.start(cfg, echo.HandledBy(func(ctx context.Context, _ payload) error {
		close(running)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return ctx.Err()
	}))
	receive(b, running)
	if err := stop(); err != nil {
		t.Error(err)
	}
	if got := b.info(info); got.State != asynq.TaskStatePending || got.Retried != 0 {
		t.Errorf("the job is %v with %d retries", got.State, got.Retried)
	}
	// asynq's server ends the context itself, without a cause, as soon as the job is back.
	if cause := receive(b, ended); !errors.Is(cause, worker.ErrAbandoned) && !errors.Is(cause, context.Canceled) {
		t.Errorf("the handler's context ended with %v", cause)
	}
}

func leavesPaused(t *testing.T, b *bench) {
	info := b.enqueue(1)
	if err := b.inspector.PauseQueue("default"); err != nil {
		t.Fatal(err)
	}
	ran := make(chan struct{}, 1)
	w, _ := b.start(b.config(), echo.HandledBy(func(context.Context, payload) error { ran <- struct{}{}; return nil }))
	b.eventually("the worker is ready", func() bool { return w.Ready() == nil })
	select {
	case <-ran:
		t.Fatal("a job of a paused queue ran")
	case <-time.After(500 * time.Millisecond):
	}
	if err := b.inspector.UnpauseQueue("default"); err != nil {
		t.Fatal(err)
	}
	receive(b, ran)
	b.eventually("the job is done", func() bool { return b.state(info) == "gone" })
}

func runsStockHandlers(t *testing.T, b *bench) {
	mux := asynq.NewServeMux()
	got := make(chan string, 2)
	mux.HandleFunc("email:", func(_ context.Context, task *asynq.Task) error {
		got <- task.Type() + " " + string(task.Payload())
		return nil
	})
	w, err := worker.New(b.rdb, b.config(), worker.Asynq("one", asynq.HandlerFunc(func(_ context.Context, task *asynq.Task) error {
		got <- task.Type()
		return nil
	})))
	if err != nil {
		t.Fatal(err)
	}
	w.Mount(mux)
	b.run(w)
	for _, want := range []string{"one", "email:welcome {}"} {
		name, body, _ := strings.Cut(want, " ")
		if _, err := asynq.NewClientFromRedisClient(b.rdb).Enqueue(asynq.NewTask(name, []byte(body))); err != nil {
			t.Fatal(err)
		}
		if v := receive(b, got); v != want {
			t.Errorf("got %q, want %q", v, want)
		}
	}
}

func aggregates(t *testing.T, b *bench) {
	digests := make(chan int, 4)
	w, err := worker.New(b.rdb, b.config(), echo.HandledBy(func(_ context.Context, p payload) error { digests <- p.N; return nil }))
	if err != nil {
		t.Fatal(err)
	}
	sum := asynq.GroupAggregatorFunc(func(_ string, tasks []*asynq.Task) *asynq.Task {
		total := 0
		for _, task := range tasks {
			var p payload
			if err := json.Unmarshal(task.Payload(), &p); err != nil {
				t.Error(err)
			}
			total += p.N
		}
		return asynq.NewTask("echo", fmt.Appendf(nil, `{"n":%d}`, total))
	})
	if err := w.Aggregate(worker.Groups{Grace: time.Second, MaxSize: 3}, sum); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 20, 300} {
		b.enqueue(n, job.Group("digest"))
	}
	b.run(w)
	if got := receive(b, digests); got != 321 {
		t.Errorf("the group became %d", got)
	}
	b.eventually("the group is empty", func() bool {
		q, err := b.inspector.GetQueueInfo("default")
		return err == nil && q.Size == 0 && q.Processed == 1
	})
}

func drains(t *testing.T, b *bench) {
	for n := range 20 {
		b.enqueue(n)
	}
	later := b.enqueue(99, job.In(time.Hour))
	cfg := b.config()
	cfg.Burst = true
	var failed atomic.Bool
	w, err := worker.New(b.rdb, cfg, echo.HandledBy(func(context.Context, payload) error {
		if failed.CompareAndSwap(false, true) {
			return job.RetryIn(0, errors.New("once"))
		}
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := w.Run(ctx); err != nil || ctx.Err() != nil {
		t.Errorf("the burst ended with %v, %v", err, ctx.Err())
	}
	q, err := b.inspector.GetQueueInfo("default")
	if err != nil || q.Size != 1 || q.Processed != 21 || b.state(later) != "scheduled" {
		t.Errorf("%+v, %v", q, err)
	}
}

func failsBurst(t *testing.T, b *bench) {
	b.enqueue(1, job.MaxRetry(0))
	cfg := b.config()
	cfg.Burst = true
	w, err := worker.New(b.rdb, cfg, echo.HandledBy(func(context.Context, payload) error { return errors.New("no") }))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Run(t.Context()); !errors.Is(err, worker.ErrJobsDied) {
		t.Errorf("the burst ended with %v", err)
	}
}
