package queue_test

import (
	"context"
	"errors"
	"slices"
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

// wake is the end of a Wait.
type wake struct {
	queue.Fetched
	err error
}

func waiting(w *queue.Waiter, name string, free func() bool) <-chan wake {
	done := make(chan wake, 1)
	go func() {
		got, err := w.Wait(name, free)
		done <- wake{got, err}
	}()
	return done
}

// watch has the bundle's worker wait with the queue's watch, and a claim behind it.
func (b *bundle) watch(ctx context.Context) (*queue.Waiter, <-chan wake) {
	b.t.Helper()
	b.worker.Beat(b.ctx)
	b.fetch(1) // nothing, but the worker has a number
	waiter := b.waiter(ctx, b.worker)
	done := waiting(waiter, q, always)
	b.eventuallyWatches(b.worker.ID())
	return waiter, done
}

// job is what a Wait has brought, or else a Fetch brings.
func (b *bundle) job(w wake) *queue.Job {
	b.t.Helper()
	if w.err != nil {
		b.t.Fatal(w.err)
	}
	if len(w.Jobs) == 0 {
		return b.take()
	}
	return w.Jobs[0]
}

func (b *bundle) watched() {
	b.t.Helper()
	eventually(b.t, "somebody watches the queue", func() bool { return b.rdb.Exists(b.ctx, wire.WatcherKey(q)).Val() == 1 })
}

func within(t *testing.T, what string, done <-chan wake) wake {
	t.Helper()
	select {
	case w := <-done:
		return w
	case <-time.After(10 * time.Second):
		t.Fatalf("not within 10 s: %s", what)
		return wake{}
	}
}

func TestWaitIsWokenByAnyProducer(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		stock := asynq.NewClientFromRedisClient(rdb)
		waiter := b.waiter(b.ctx, b.worker)
		b.worker.Beat(b.ctx)
		b.fetch(1) // nothing, but the worker has a number
		brought := 0
		for name, push := range map[string]func() error{
			"bellhop": func() error { return b.client.Enqueue(b.ctx, []queue.Entry{{Message: message("a")}})[0].Err },
			"asynq": func() error {
				_, err := stock.Enqueue(asynq.NewTask("mail:send", nil), asynq.Queue(q), asynq.TaskID("b"))
				return err
			},
		} {
			done := waiting(waiter, q, always)
			b.watched()
			if err := push(); err != nil {
				t.Fatal(err)
			}
			woken := within(t, "woken by "+name, done)
			brought += len(woken.Jobs)
			b.finish(queue.Done(b.job(woken)))
		}
		if brought != 2 {
			t.Errorf("the push brought %d of 2 jobs without another call", brought)
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
		done := waiting(waiter, q, always)
		b.watched()
		start := time.Now()
		cancel()
		if w := within(t, "interrupted", done); !errors.Is(w.err, context.Canceled) {
			t.Error(w.err)
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
	done := waiting(waiter, q, always)
	select {
	case w := <-done:
		t.Fatalf("woken in a paused queue: %+v", w)
	case <-time.After(2500 * time.Millisecond):
	}
	if n := commands(t, b.rdb) - before; n > 8 {
		t.Errorf("%d commands in 2.5 s", n)
	}
	b.rdb.Del(b.ctx, wire.PausedKey(q))
	b.finish(queue.Done(b.job(within(t, "resumed", done))))
}

// A worker whose beats don't come takes nothing: it would be taken for one that stands still.
func TestASilentWorkerClaimsNothing(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.New(t))
	b.worker.Beat(b.ctx)
	b.fetch(1)
	b.rdb.ZAdd(b.ctx, wire.BeatsKey(q), redis.Z{Score: float64(b.now().Add(-11 * time.Second).UnixMilli()), Member: b.worker.ID()})
	done := waiting(b.waiter(b.ctx, b.worker), q, always)
	b.eventuallyWatches(b.worker.ID())
	b.enqueue("a")
	if w := within(t, "woken", done); len(w.Jobs) > 0 || w.err != nil {
		t.Errorf("%+v", w)
	}
	if got := b.pending(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("pending %v", got)
	}
}

// A closed Waiter says so, even if a request of its worker is open.
func TestAClosedWaiterSaysSo(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.New(t))
	waiter, done := b.watch(b.ctx)
	if err := waiter.Close(); err != nil {
		t.Fatal(err)
	}
	within(t, "interrupted", done)
	for range 3 {
		if w := within(t, "refused", waiting(waiter, q, always)); w.err == nil {
			t.Errorf("%+v", w)
		}
	}
}

// A claim that waits in Redis takes nothing once its worker has left or was reaped, or where a job needs more than a claim sees to: a fetch
// comes for it.
func TestAClaimThatMustNotTakesNothing(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		for name, push := range map[string]func(name string){
			"left": func(name string) {
				if err := b.worker.Leave(b.ctx); err != nil {
					t.Fatal(err)
				}
				b.enqueue(name)
			},
			"reaped": func(name string) {
				if _, alive, err := b.client.Reap(b.ctx, q, b.beatOf(b.worker.ID()), 3); err != nil || alive {
					t.Fatal(alive, err)
				}
				b.enqueue(name)
			},
			"paused": func(name string) {
				rdb.Set(b.ctx, wire.PausedKey(q), "1", 0)
				b.enqueue(name)
			},
			"behind an orphan": func(name string) {
				rdb.LPush(b.ctx, wire.PendingKey(q), "orphan")
				b.enqueue(name)
			},
			"suspect": func(name string) {
				body, err := message(name).AppendTo(nil)
				if err != nil {
					t.Fatal(err)
				}
				rdb.Set(b.ctx, wire.SuspectsKey(q), "1", 0)
				rdb.HSet(b.ctx, wire.JobKey(q, name), "msg", body, "state", "pending", "bellhop_suspect", "1")
				rdb.LPush(b.ctx, wire.PendingKey(q), name)
			},
		} {
			_, done := b.watch(b.ctx)
			push(name)
			if w := within(t, name, done); len(w.Jobs) > 0 || w.err != nil {
				t.Errorf("%s: %+v", name, w)
			}
			if got := b.pending(); !slices.Contains(got, name) {
				t.Errorf("%s: pending %v", name, got)
			}
			rdb.Del(b.ctx, wire.PausedKey(q))
			b.worker.Beat(b.ctx)
			b.finish(queue.Done(b.take())) // and it goes on by itself
			rdb.Del(b.ctx, wire.SuspectsKey(q), wire.WatcherKey(q))
		}
	})
}

// Beside a suspect in the queue, jobs that are none come to the waiting worker as ever.
func TestAClaimTakesWhatIsNoSuspect(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		b.worker.Beat(b.ctx)
		b.fetch(1)
		rdb.Set(b.ctx, wire.SuspectsKey(q), "1", 0)
		done := waiting(b.waiter(b.ctx, b.worker), q, always)
		b.eventuallyWatches(b.worker.ID())
		b.enqueue("sound")
		w := within(t, "brought", done)
		if len(w.Jobs) != 1 {
			t.Fatalf("%+v", w)
		}
		b.finish(queue.Done(w.Jobs[0]))
		b.atRest()
	})
}
