package worker_test

import (
	"context"
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

// What stock asynq's server can't do, and the engine bellhop does: an attempt is spent only by a failure, a job that somebody
// cancels is not tried again, and times are exact to the millisecond.
//   - A snooze, or a task that this build does not know, on the last attempt: asynq archives the job.
//   - A cancelled job: asynq retries it (TestCancelledJobIsNotTriedAgain).
//   - A handler that ignores its context after its timeout: asynq frees the slot and runs more jobs than Concurrency says
//     (TestStuckHandlerHoldsItsSlot).
//   - A Discard that a handler answers when the grace period is over: asynq hands the job back.
//   - A wait of less than a second: asynq's is cut to whole seconds, and ours around it lengthens it to the next one.
func TestBeyondStock(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]func(*testing.T, *bench){
		"snoozes on the last attempt":                  snoozesLast,
		"puts off an unknown task on its last attempt": putsOffUnknownLast,
		"waits to the millisecond":                     waitsExactly,
		"a late success is a timeout":                  failsLate,
		"runs nothing after the deadline":              refusesLate,
		"keeps a word that comes after the grace":      heedsTheLastWord,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
				test(t, newBench(t, rdb, worker.EngineBellhop))
			})
		})
	}
}

func snoozesLast(t *testing.T, b *bench) {
	info := b.enqueue(1, job.MaxRetry(0), job.Retention(time.Minute))
	var attempts atomic.Int32
	b.start(b.config(), echo.HandledBy(func(context.Context, payload) error {
		if attempts.Add(1) <= 2 {
			return job.Snooze(time.Millisecond)
		}
		return nil
	}))
	b.eventually("the job is done", func() bool { return b.state(info) == "completed" })
	if q, err := b.inspector.GetQueueInfo("default"); err != nil || q.Processed != 1 || q.Failed != 0 || attempts.Load() != 3 {
		t.Errorf("%d attempts, %+v, %v", attempts.Load(), q, err)
	}
}

func putsOffUnknownLast(t *testing.T, b *bench) {
	info := b.enqueue(1, job.MaxRetry(0))
	b.start(b.config())
	b.eventually("the job is put off", func() bool { return b.state(info) == "retry" })
	if got := b.info(info); got.Retried != 0 || !strings.Contains(got.LastErr, "no handler") {
		t.Errorf("%+v", got)
	}
}

func waitsExactly(t *testing.T, b *bench) {
	const wait = 120 * time.Millisecond
	times := make(chan time.Time, 2)
	b.enqueue(1)
	b.start(b.config(), echo.HandledBy(func(ctx context.Context, _ payload) error {
		times <- time.Now()
		if j, _ := job.FromContext(ctx); j.Attempt == 1 {
			return job.RetryIn(wait, errors.New("soon"))
		}
		return nil
	}))
	first, second := receive(b, times), receive(b, times)
	if d := second.Sub(first); d < wait || d > wait+800*time.Millisecond {
		t.Errorf("the second attempt came after %v, not %v", d, wait)
	}
}

func failsLate(t *testing.T, b *bench) {
	info := b.enqueue(1, job.MaxRetry(0), job.Timeout(50*time.Millisecond))
	b.start(b.config(), echo.HandledBy(func(ctx context.Context, _ payload) error {
		<-ctx.Done()
		return nil
	}))
	b.eventually("the job is dead", func() bool { return b.state(info) == "archived" })
	if got := b.info(info).LastErr; got != worker.ErrTimeout.Error() {
		t.Errorf("its error is %q", got)
	}
}

func refusesLate(t *testing.T, b *bench) {
	info := b.enqueue(1, job.MaxRetry(0), job.Deadline(time.Now().Add(time.Millisecond)))
	<-time.After(2 * time.Millisecond)
	b.start(b.config(), echo.HandledBy(func(context.Context, payload) error {
		t.Error("the handler ran after the deadline")
		return nil
	}))
	b.eventually("the job is dead", func() bool { return b.state(info) == "archived" })
}

func heedsTheLastWord(t *testing.T, b *bench) {
	answers := []error{job.Discard("half done"), job.Snooze(time.Hour), fmt.Errorf("no use: %w", asynq.SkipRetry), errors.New("cut short")}
	states := []string{"archived", "retry", "archived", "pending"}
	infos := make([]*job.Info, len(answers))
	for n := range answers {
		infos[n] = b.enqueue(n, job.MaxRetry(0))
	}
	running := make(chan struct{}, len(answers))
	cfg := b.config()
	cfg.Grace = 50 * time.Millisecond
	_, stop := b.start(cfg, echo.HandledBy(func(ctx context.Context, p payload) error {
		running <- struct{}{}
		<-ctx.Done()
		return answers[p.N]
	}))
	for range answers {
		receive(b, running)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	for n, want := range states {
		if got := b.state(infos[n]); got != want {
			t.Errorf("%v: the job is %s, want %s", answers[n], got, want)
		}
	}
}
