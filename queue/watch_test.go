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

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

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

// Who looked beside another one and got nothing makes no further watch: somebody may have taken it from its list this moment. Who has taken it
// and has no slot gives it back.
func TestNoWatchTooManyAndNoneTooFew(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.New(t))
	watches := func() int64 { return b.rdb.LLen(b.ctx, wire.WatchKey(q)).Val() }
	waiter, done := b.watch(b.ctx)
	b.rdb.Del(b.ctx, wire.WatcherKey(q)) // the other one's claim has handed it on
	b.rdb.LPush(b.ctx, wire.PendingKey(q), "orphan")
	if w := within(t, "woken", done); w.err != nil || len(w.Jobs) > 0 {
		t.Fatalf("%+v", w)
	}
	if err := waiter.PassOn(b.ctx, q); err != nil || watches() != 0 {
		t.Errorf("%d watches: %v", watches(), err)
	}

	b.fetch(1) // drops the orphan
	b.rdb.LPush(b.ctx, wire.WatchKey(q), "1")
	free := true
	if _, err := waiter.Wait(q, func() bool { defer func() { free = false }(); return free }); !errors.Is(err, queue.ErrBusy) {
		t.Errorf("got %v", err)
	}
	if watches() != 1 {
		t.Errorf("%d watches", watches())
	}
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
