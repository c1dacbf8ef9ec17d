package queue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// A watch whose holder died without a word is made anew by the next beat of any worker.
func TestTheWatchOfTheDeadIsMadeAnew(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.New(t))
	b.rdb.Set(b.ctx, wire.WatcherKey(q), "the dead", 50*time.Millisecond)
	done := waiting(b.waiter(b.ctx, b.worker), q, always)
	eventually(t, "the watch expires", func() bool { return b.rdb.Exists(b.ctx, wire.WatcherKey(q)).Val() == 0 })
	b.worker.Beat(b.ctx)
	b.watched()
	b.enqueue("a")
	b.finish(queue.Done(b.job(within(t, "woken", done))))
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

// A claim hands the watch on, whatever becomes of the worker that it has brought the job to.
func TestAClaimHandsTheWatchOn(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		_, first := b.watch(b.ctx)
		heir := b.other("idle")
		heir.Beat(b.ctx)
		b.fetchAs(heir, 1)
		idle := waiting(b.waiter(b.ctx, heir), q, always)
		b.enqueue("a")
		b.job(within(t, "the watcher takes the job", first)) // and is heard of no more

		b.eventuallyWatches("idle")
		b.enqueue("b")
		if woken := within(t, "the idle one is woken", idle); woken.err != nil || len(woken.Jobs) != 1 || woken.Jobs[0].ID != "b" {
			t.Fatalf("%+v", woken)
		}
	})
}

// A worker whose jobs come one right after the other takes the watch back with its next look, where no other worker stands in line: no round
// trip is made for it. Until then it lies where an idle one finds it, whatever becomes of the worker.
func TestALivelyWorkerGoesOnLooking(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.New(t))
	b.worker.Beat(b.ctx)
	b.fetch(1)
	waiter := b.waiter(b.ctx, b.worker)
	n := 0
	next := func() {
		t.Helper()
		done := waiting(waiter, q, always)
		b.eventuallyWatches(b.worker.ID())
		n++
		b.enqueue(fmt.Sprint("job-", n))
		b.finish(queue.Done(b.job(within(t, "brought", done))))
	}
	lines := func() int { return calls(t, b.rdb, "blpop") }
	eventually(t, "two jobs come without standing in line", func() bool { // a slow machine may need more
		before := lines()
		next()
		next()
		return lines() == before
	})
	if got := b.rdb.Get(b.ctx, wire.WatcherKey(q)).Val(); got != "" {
		t.Errorf("%q has the watch before it looks again", got)
	}

	heir := b.other("idle")
	heir.Beat(b.ctx)
	b.fetchAs(heir, 1)
	idle := waiting(b.waiter(b.ctx, heir), q, always)
	b.eventuallyWatches("idle")
	b.enqueue("the heir's")
	if w := within(t, "the idle one is woken", idle); len(w.Jobs) != 1 {
		t.Errorf("%+v", w)
	}
}

// Who takes the watch back and finds that another one was faster looks beside it until one of them has a job; then one looks.
func TestTwoWhoLookBecomeOne(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		_, done := b.watch(b.ctx)
		rdb.Set(b.ctx, wire.WatcherKey(q), "another", time.Minute)
		b.enqueue("a")
		b.finish(queue.Done(b.job(within(t, "brought", done))))
		if got := rdb.Get(b.ctx, wire.WatcherKey(q)).Val(); got != "another" || rdb.LLen(b.ctx, wire.WatchKey(q)).Val() != 0 {
			t.Errorf("the watch is of %q, and %d lie in its list", got, rdb.LLen(b.ctx, wire.WatchKey(q)).Val())
		}
	})
}

// A watch that went with a broken connection is made anew by who stood in line on it, before any beat.
func TestABrokenLineBringsTheWatchBack(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.New(t))
	b.worker.Beat(b.ctx)
	b.fetch(1)
	b.rdb.Del(b.ctx, wire.WatchKey(q))
	b.rdb.Set(b.ctx, wire.WatcherKey(q), "another", time.Minute)
	waiting(b.waiter(b.ctx, b.worker), q, always)
	line := blocked(t, b.rdb, "blpop")
	b.rdb.Del(b.ctx, wire.WatcherKey(q))
	b.rdb.ClientKillByFilter(b.ctx, "ID", line)
	b.eventuallyWatches(b.worker.ID())
}

// The watch of a worker that says nothing more comes free by itself.
func TestTheWatchExpires(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.New(t))
	b.watch(b.ctx)
	if left := b.rdb.PTTL(b.ctx, wire.WatcherKey(q)).Val(); left <= 0 || left > 15*time.Second {
		t.Errorf("it stays for %v", left)
	}
}

// A full Redis refuses writes, not the note of who looks: else all would.
func TestAFullRedisKnowsWhoLooks(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.New(t))
	ctx, stop := context.WithCancel(b.ctx)
	defer stop()
	_, done := b.watch(ctx)
	b.rdb.ConfigSet(b.ctx, "maxmemory", "1")
	b.rdb.LPush(b.ctx, "never", "1") // refused
	b.rdb.Do(b.ctx, "CLIENT", "UNBLOCK", blocked(t, b.rdb, "blmove"))
	b.rdb.Del(b.ctx, wire.WatcherKey(q)) // it expires
	b.eventuallyWatches(b.worker.ID())
	if left := b.rdb.PTTL(b.ctx, wire.WatcherKey(q)).Val(); left <= 0 || left > 15*time.Second {
		t.Errorf("the watch stays for %v", left)
	}
	b.rdb.ConfigSet(b.ctx, "maxmemory", "0")
	b.enqueue("a")
	b.finish(queue.Done(b.job(within(t, "brought", done))))
}

// blocked is the id of the client that waits in a command.
func blocked(t *testing.T, rdb redis.UniversalClient, command string) (id string) {
	t.Helper()
	eventually(t, "one waits in "+command, func() bool {
		for line := range strings.SplitSeq(rdb.ClientList(t.Context()).Val(), "\n") {
			if strings.Contains(line, "cmd="+command) {
				id, _, _ = strings.Cut(strings.TrimPrefix(line, "id="), " ")
				return true
			}
		}
		return false
	})
	return id
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

// A worker that has the watch and can't use it passes it on: when it is busy, and, if its waiting ends before it could, when it is told to.
func TestAWorkerPassesTheWatchOn(t *testing.T) {
	t.Parallel()
	for name, leaves := range map[string]bool{"busy": false, "leaving": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, redistest.New(t))
			ctx, leave := context.WithCancel(b.ctx)
			defer leave()
			waiter, done := b.watch(ctx)
			b.rdb.LPush(b.ctx, wire.PendingKey(q), "orphan") // brings nothing, and the watch stays
			if woken := within(t, "woken", done); woken.err != nil || len(woken.Jobs) > 0 {
				t.Fatalf("%+v", woken)
			}
			heir := b.other("idle")
			heir.Beat(b.ctx)
			b.fetchAs(heir, 1) // drops the orphan
			waiting(b.waiter(b.ctx, heir), q, always)
			if got := b.rdb.Get(b.ctx, wire.WatcherKey(q)).Val(); got != b.worker.ID() {
				t.Fatalf("%q has the watch", got)
			}
			free := func() bool {
				if leaves {
					leave()
				}
				return false
			}
			if _, err := waiter.Wait(q, free); !errors.Is(err, queue.ErrBusy) {
				t.Errorf("got %v", err)
			}
			if leaves {
				if err := waiter.PassOn(b.ctx, q); err != nil {
					t.Error(err)
				}
			}
			b.eventuallyWatches("idle")
		})
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

// After SCRIPT FLUSH the worker that waits is noted as the watcher all the same: else each idle one would watch.
func TestForgottenScriptsLeaveOneWatcher(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.New(t))
	waiter, done := b.watch(b.ctx)
	b.enqueue("a")
	b.finish(queue.Done(b.job(within(t, "brought", done))))
	b.rdb.ScriptFlush(b.ctx)
	done = waiting(waiter, q, always)
	b.eventuallyWatches(b.worker.ID())
	b.enqueue("b")
	b.finish(queue.Done(b.job(within(t, "woken", done)))) // by a fetch
	done = waiting(waiter, q, always)
	b.eventuallyWatches(b.worker.ID())
	b.enqueue("c")
	woken := within(t, "brought again", done)
	if len(woken.Jobs) != 1 {
		t.Errorf("%+v", woken)
	}
	b.finish(queue.Done(b.job(woken)))
}

func (b *bundle) eventuallyWatches(worker string) {
	b.t.Helper()
	eventually(b.t, worker+" watches", func() bool { return b.rdb.Get(b.ctx, wire.WatcherKey(q)).Val() == worker })
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

// Fifty idle workers must not all come for one job.
func TestAPushWakesOneOfFifty(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.New(t))
	ctx, cancel := context.WithCancel(b.ctx)
	var fetches, jobs atomic.Int64
	var wg sync.WaitGroup
	b.worker.Beat(b.ctx)
	b.fetch(1) // nothing, but the worker has a number
	fleet := make([]*queue.Worker, 50)
	for i := range fleet {
		fleet[i] = b.other(fmt.Sprintf("idle-%d", i))
		fleet[i].Beat(b.ctx)
		b.fetchAs(fleet[i], 1)
	}
	for _, w := range fleet {
		waiter := b.waiter(ctx, w)
		wg.Go(func() {
			for {
				got, err := waiter.Wait(q, always)
				if err != nil {
					return
				}
				fetches.Add(1)
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
	return calls(t, rdb, "eval") + calls(t, rdb, "bl")
}

// calls is how often Redis has run the commands whose names begin so.
func calls(t testing.TB, rdb redis.UniversalClient, names string) int {
	t.Helper()
	var n int
	for line := range strings.SplitSeq(rdb.Info(t.Context(), "commandstats").Val(), "\n") {
		name, rest, _ := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		if strings.HasPrefix(name, names) {
			var calls int
			if _, err := fmt.Sscanf(rest, "%d", &calls); err == nil {
				n += calls
			}
		}
	}
	return n
}
