package worker_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/worker"
)

func survivesRetry(t *testing.T, b *bench) {
	bad := job.Define[payload]("bad", job.Retry(func(n int, _ error) time.Duration {
		return []time.Duration{time.Second}[n]
	}))
	info, err := bad.Enqueue(t.Context(), b.client, payload{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := b.config()
	cfg.Retry = worker.Retry{First: time.Hour, Max: time.Hour}
	b.start(cfg, bad.HandledBy(func(context.Context, payload) error { return errors.New("the real failure") }))
	b.eventually("the job waits", func() bool { return b.state(info) == "retry" })
	got := b.info(info)
	if !strings.Contains(got.LastErr, "the real failure") || !strings.Contains(got.LastErr, "index out of range") {
		t.Errorf("the error is %q", got.LastErr)
	}
	if got.Retried != 1 || time.Until(got.NextProcessAt) < 20*time.Minute {
		t.Errorf("%d retries, the next attempt comes in %v", got.Retried, time.Until(got.NextProcessAt))
	}
}

// nilError can't be read while it is nil, as most error types.
type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

// fussyError panics where it is compared.
type fussyError struct{}

func (fussyError) Error() string { return "fussy" }
func (fussyError) Is(error) bool { panic("don't ask me") }

func survivesErrors(t *testing.T, b *bench) {
	typedNil, fussy := b.enqueue(1, job.MaxRetry(0)), b.enqueue(2, job.MaxRetry(0))
	b.start(b.config(), echo.HandledBy(func(_ context.Context, p payload) error {
		if p.N == 1 {
			var err *nilError
			return err
		}
		return fussyError{}
	}))
	b.eventually("the jobs are dead", func() bool { return b.state(typedNil) == "archived" && b.state(fussy) == "archived" })
	if got := b.info(typedNil).LastErr; !strings.Contains(got, "nil pointer") {
		t.Errorf("the typed nil's error is %q", got)
	}
	if got := b.info(fussy).LastErr; !strings.HasPrefix(got, "fussy; ") || !strings.Contains(got, "don't ask me") {
		t.Errorf("the fussy one's error is %q", got)
	}
}

func putsOffUnmuxed(t *testing.T, b *bench) {
	inner, mux := asynq.NewServeMux(), asynq.NewServeMux()
	known := func(context.Context, *asynq.Task) error { return nil }
	inner.HandleFunc("mail:known", known)
	mux.HandleFunc("known", known)
	mux.Handle("mail:", inner)
	w, err := worker.New(b.rdb, b.config())
	if err != nil {
		t.Fatal(err)
	}
	w.Mount(mux)
	b.run(w)
	client := asynq.NewClientFromRedisClient(b.rdb)
	for _, task := range []string{"unknown", "mail:unknown"} {
		info, err := client.Enqueue(asynq.NewTask(task, nil), asynq.MaxRetry(2))
		if err != nil {
			t.Fatal(err)
		}
		b.eventually("the job is put off", func() bool {
			got, err := b.inspector.GetTaskInfo("default", info.ID)
			return err == nil && got.State == asynq.TaskStateRetry && got.Retried == 0 && time.Until(got.NextProcessAt) > 10*time.Second
		})
	}
}

// A handler that was shown to ignore its context has lost its say: what it returns is a timeout.
func TestStuckHandlerHasNoSay(t *testing.T) {
	t.Parallel()
	b := newPoolBench(t)
	var lines journal
	answers := []error{job.Discard("late"), job.Snooze(time.Hour), asynq.RevokeTask}
	infos := make([]*job.Info, len(answers))
	for n := range answers {
		infos[n] = b.enqueue(n, job.Timeout(20*time.Millisecond), job.MaxRetry(1))
	}
	release := make(chan struct{})
	cfg := b.config()
	cfg.Logger = lines.logger()
	var attempts atomic.Int32
	slow := job.Define[payload]("echo", job.Retry(func(int, error) time.Duration { return time.Hour }))
	b.start(cfg, slow.HandledBy(func(_ context.Context, p payload) error {
		attempts.Add(1)
		ignoreTheContext(release)
		return answers[p.N]
	}))
	b.eventually("the handlers are shown", func() bool { return lines.count("ignores that its time") == len(answers) })
	close(release)
	for n, info := range infos {
		b.eventually("the job has left the worker", func() bool { return b.state(info) != "active" })
		if b.state(info) != "retry" {
			t.Fatalf("%v: the job is %s", answers[n], b.state(info))
		}
		if got := b.info(info); got.Retried != 1 || !strings.HasPrefix(got.LastErr, worker.ErrTimeout.Error()) {
			t.Errorf("%v: %d retries, the error is %q", answers[n], got.Retried, got.LastErr)
		}
	}
}

// A mounted handler that needs asynq's own server is told so, and what is logged says what happened to a job.
func TestLogTellsWhatToDo(t *testing.T) {
	t.Parallel()
	b := newBench(t, redistest.New(t), worker.EngineBellhop)
	var lines journal
	cfg := b.config()
	cfg.Logger = lines.logger()
	w, err := worker.New(b.rdb, cfg)
	if err != nil {
		t.Fatal(err)
	}
	mux := asynq.NewServeMux()
	mux.HandleFunc("write", func(_ context.Context, task *asynq.Task) error {
		_, err := task.ResultWriter().Write([]byte("x"))
		return err
	})
	mux.HandleFunc("skip", func(context.Context, *asynq.Task) error { return asynq.SkipRetry })
	w.Mount(mux)
	b.run(w)
	client := asynq.NewClientFromRedisClient(b.rdb)
	for _, task := range []string{"write", "skip", "unknown"} {
		if _, err := client.Enqueue(asynq.NewTask(task, nil), asynq.TaskID(task), asynq.MaxRetry(0)); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"worker.EngineAsynq", "job discarded", "put off for 30s", "level=WARN msg=\"mounted asynq handlers"} {
		b.eventually("the log says "+want, func() bool { return lines.count(want) == 1 })
	}
	if n := lines.count("panicked"); n != 0 {
		t.Errorf("%d panics were logged", n)
	}
	b.eventually("the job's own error says it too", func() bool {
		got, err := b.inspector.GetTaskInfo("default", "write")
		return err == nil && strings.Contains(got.LastErr, "worker.EngineAsynq")
	})
}
