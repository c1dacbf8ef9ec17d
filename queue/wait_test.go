package queue_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

func always() bool { return true }

func (b *bundle) waiter(ctx context.Context, w *queue.Worker) *queue.Waiter {
	b.t.Helper()
	waiter, err := w.Waiter(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = waiter.Close() })
	return waiter
}

// waiting starts a Wait and returns its end.
func waiting(w *queue.Waiter) <-chan error {
	done := make(chan error, 1)
	go func() { done <- w.Wait(q, always) }()
	return done
}

func (b *bundle) watched() {
	b.t.Helper()
	eventually(b.t, "somebody watches the queue", func() bool { return b.rdb.Exists(b.ctx, wire.WatcherKey(q)).Val() == 1 })
}

func within(t *testing.T, what string, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatalf("not within 10 s: %s", what)
		return nil
	}
}

func TestWaitIsWokenByAnyProducer(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		stock := asynq.NewClientFromRedisClient(rdb)
		waiter := b.waiter(b.ctx, b.worker)
		b.worker.Beat(b.ctx)
		for name, push := range map[string]func() error{
			"bellhop": func() error { return b.client.Enqueue(b.ctx, []queue.Entry{{Message: message("a")}})[0].Err },
			"asynq": func() error {
				_, err := stock.Enqueue(asynq.NewTask("mail:send", nil), asynq.Queue(q), asynq.TaskID("b"))
				return err
			},
		} {
			done := waiting(waiter)
			b.watched()
			if err := push(); err != nil {
				t.Fatal(err)
			}
			if err := within(t, "woken by "+name, done); err != nil {
				t.Fatal(err)
			}
			b.finish(queue.Done(b.take()))
		}
	})
}

func TestTheEndOfTheContextInterruptsWaiting(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		ctx, cancel := context.WithCancel(b.ctx)
		waiter := b.waiter(ctx, b.worker)
		b.worker.Beat(b.ctx)
		done := waiting(waiter)
		b.watched()
		start := time.Now()
		cancel()
		if err := within(t, "interrupted", done); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("took %s", d)
		}
		if err := b.worker.Leave(b.ctx); err != nil {
			t.Error(err)
		}
		if rdb.Exists(b.ctx, wire.WatcherKey(q)).Val() != 0 || rdb.LLen(b.ctx, wire.WatchKey(q)).Val() != 1 {
			t.Error("the watch went with the worker")
		}
	})
}

// A watch whose holder died without a word is made anew by the next beat of any worker.
func TestTheWatchOfTheDeadIsMadeAnew(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.New(t))
	b.rdb.Set(b.ctx, wire.WatcherKey(q), "the dead", 50*time.Millisecond)
	done := waiting(b.waiter(b.ctx, b.worker))
	eventually(t, "the watch expires", func() bool { return b.rdb.Exists(b.ctx, wire.WatcherKey(q)).Val() == 0 })
	b.worker.Beat(b.ctx)
	b.watched()
	b.enqueue("a")
	if err := within(t, "woken", done); err != nil {
		t.Fatal(err)
	}
}

func TestWaitDoesNotSpinOnAPausedQueue(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.New(t))
	waiter := b.waiter(b.ctx, b.worker)
	b.enqueue("a")
	b.rdb.Set(b.ctx, wire.PausedKey(q), "1", 0)
	if got := b.fetch(1); !got.Paused {
		t.Fatal("not paused")
	}
	before := commands(t, b.rdb)
	done := waiting(waiter)
	select {
	case err := <-done:
		t.Fatalf("woken in a paused queue: %v", err)
	case <-time.After(2500 * time.Millisecond):
	}
	if n := commands(t, b.rdb) - before; n > 8 {
		t.Errorf("%d commands in 2.5 s", n)
	}
	b.rdb.Del(b.ctx, wire.PausedKey(q))
	if err := within(t, "resumed", done); err != nil {
		t.Fatal(err)
	}
	b.finish(queue.Done(b.take()))
}

func TestABusyWorkerPassesTheWatchOn(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.New(t))
	b.worker.Beat(b.ctx)
	var free atomic.Bool
	free.Store(true)
	busy := make(chan error, 1)
	waiter := b.waiter(b.ctx, b.worker)
	go func() { busy <- waiter.Wait(q, free.Load) }()
	b.watched()
	idle := waiting(b.waiter(b.ctx, b.other("idle")))
	free.Store(false)
	b.enqueue("a")
	if err := within(t, "the watcher looks", busy); err != nil {
		t.Fatal(err)
	}
	if err := b.worker.Beat(b.ctx); err != nil && err[0].Err != nil {
		t.Fatal(err[0].Err)
	}
	if err := waiter.PassOn(b.ctx, q); err != nil {
		t.Fatal(err)
	}
	if err := within(t, "the idle one is woken", idle); err != nil {
		t.Fatal(err)
	}
	if err := waiter.Wait(q, free.Load); !errors.Is(err, queue.ErrBusy) {
		t.Errorf("got %v", err)
	}
}

// Fifty idle workers must not all come for one job.
func TestAPushWakesOneOfFifty(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.New(t))
	ctx, cancel := context.WithCancel(b.ctx)
	var fetches, jobs atomic.Int64
	var wg sync.WaitGroup
	b.worker.Beat(b.ctx)
	for i := range 50 {
		w := b.other(fmt.Sprintf("idle-%d", i))
		waiter := b.waiter(ctx, w)
		wg.Go(func() {
			for waiter.Wait(q, always) == nil {
				fetches.Add(1)
				got, err := w.Fetch(b.ctx, q, 1)
				if err != nil {
					t.Error(err)
					return
				}
				for _, job := range got.Jobs {
					if err := w.Finish(b.ctx, queue.Done(job))[0]; err != nil {
						t.Error(err)
					}
					jobs.Add(1)
				}
			}
		})
	}
	b.watched()
	eventually(t, "all stand in line", func() bool { return strings.Count(b.rdb.ClientList(b.ctx).Val(), "cmd=bl") == 50 })
	before := commands(t, b.rdb)
	const pushed = 40
	for i := range pushed {
		b.enqueue(fmt.Sprintf("one-%d", i))
		eventually(t, "the job is done", func() bool { return jobs.Load() == int64(i+1) })
	}
	per := float64(commands(t, b.rdb)-before) / pushed
	t.Logf("%.1f commands and %.2f fetches for each job", per, float64(fetches.Load())/pushed)
	if fetches.Load() > 2*pushed {
		t.Errorf("%d fetches for %d jobs", fetches.Load(), pushed)
	}
	cancel()
	wg.Wait()
}

// commands is how many scripts and blocking commands clients have sent.
func commands(t testing.TB, rdb redis.UniversalClient) int {
	t.Helper()
	var n int
	for line := range strings.SplitSeq(rdb.Info(t.Context(), "commandstats").Val(), "\n") {
		name, rest, _ := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		if strings.HasPrefix(name, "eval") || strings.HasPrefix(name, "bl") {
			var calls int
			if _, err := fmt.Sscanf(rest, "%d", &calls); err == nil {
				n += calls
			}
		}
	}
	return n
}
