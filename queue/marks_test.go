package queue_test

import (
	"context"
	"errors"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

// dropper loses the answer of the next pipeline.
type dropper struct {
	drop atomic.Bool
	then func() // what happens meanwhile, nil is nothing
}

func (*dropper) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}
func (*dropper) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (d *dropper) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		if d.drop.Swap(false) {
			if d.then != nil {
				d.then()
			}
			for _, cmd := range cmds {
				cmd.SetErr(io.EOF)
			}
			return io.EOF
		}
		return err
	}
}

// After 512 fetches a mark comes again. An answer that was lost and is asked for again names a job too that has run for so long: it runs on.
func TestALongRunningJobOutlivesItsMark(t *testing.T) {
	t.Parallel()
	lossy := new(dropper)
	_, rdb := hooked(t, lossy)
	b := setup(t, rdb)
	b.enqueue("long")
	long := b.take()
	for range 511 {
		b.fetch(1)
	}
	b.worker.Beat(b.ctx)
	b.enqueue("short")
	lossy.drop.Store(true)
	if _, err := b.worker.Fetch(b.ctx, q, 5); err == nil {
		t.Fatal("the answer was not lost")
	}
	got := b.fetch(5)
	if ids := idsOf(got.Jobs); !slices.Equal(ids, []string{"short"}) || got.HeldBack != 0 {
		t.Errorf("got %v, held back %d", ids, got.HeldBack)
	}
	if others := b.fetchAs(b.other("other"), 5).Jobs; len(others) > 0 {
		t.Errorf("another got %v", idsOf(others))
	}
	b.finish(queue.Done(long), queue.Done(got.Jobs[0]))
	b.atRest()
}

// The member that makes a skip list of the leases is no job's id, whatever ids look like.
func TestNoIDIsTakenForAnother(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		odd := []string{strings.Repeat("-", 65), strings.Repeat("0", 65), strings.Repeat("{", 65), strings.Repeat("a", 255)}
		b.enqueue(append(odd, "1", "2", "3")...)
		got := b.fetch(10)
		if n := rdb.ZCard(b.ctx, wire.LeaseKey(q)).Val(); n != 7 || len(got.Jobs) != 7 {
			t.Errorf("%d leases of %d jobs", n, len(got.Jobs))
		}
		for _, beaten := range b.worker.Beat(b.ctx) {
			if len(beaten.Lost) > 0 {
				t.Errorf("lost %v", idsOf(beaten.Lost))
			}
		}
		for _, job := range got.Jobs {
			b.finish(queue.Done(job))
		}
		b.atRest()
	})
}

// standing is a client that blocks, with more behind.
var standing = regexp.MustCompile(`qbuf=[1-9].* cmd=blmove `)

// What a waiting fetch took whose answer is lost is found at once, though nothing more is pushed.
func TestALostAnswerToAWaitingFetchIsAskedForAgain(t *testing.T) {
	t.Parallel()
	for name, fleet := range map[string]bool{"alone": false, "beside an idle worker": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			cut := newCutter(t, server.Addr(), 1)
			cut.set(0)
			cut.from = 50 // not the answer to what stands before the blocking command
			rdb := redis.NewClient(&redis.Options{
				Addr: cut.listener.Addr().String(), MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
			})
			t.Cleanup(func() { _ = rdb.Close() })
			b := setup(t, server.Client())
			w, err := queue.New(rdb).NewWorker("victim", q)
			if err != nil {
				t.Fatal(err)
			}
			b.enqueue("first") // brings the worker a number, and the script to Redis
			if errs := w.Finish(b.ctx, queue.Done(b.fetchAs(w, 1).Jobs[0])); errs[0] != nil {
				t.Fatal(errs)
			}
			w.Beat(b.ctx)
			done := waiting(b.waiter(b.ctx, w), q, always)
			b.eventuallyWatches("victim")
			if fleet {
				idle := b.other("idle")
				idle.Beat(b.ctx)
				b.fetchAs(idle, 1)
				waiting(b.waiter(b.ctx, idle), q, always)
			}
			eventually(t, "the claim stands in Redis", func() bool { return standing.MatchString(b.rdb.ClientList(b.ctx).Val()) })
			b.rdb.ConfigSet(b.ctx, "slowlog-log-slower-than", "0")
			cut.set(1)
			b.enqueue("a")
			eventually(t, "the fetch has taken the job", func() bool { return b.rdb.LLen(b.ctx, wire.ActiveKey(q)).Val() == 1 })
			claim := b.claimed()
			cut.set(0)
			start := time.Now()
			woken := within(t, "told to ask again", done)
			if woken.err != nil {
				t.Fatal(woken.err)
			}
			jobs := woken.Jobs
			for deadline := time.Now().Add(5 * time.Second); len(jobs) == 0; {
				if got, err := w.Fetch(b.ctx, q, 1); err == nil {
					jobs = got.Jobs
				}
				if time.Now().After(deadline) {
					t.Fatal("the job is not found")
				}
			}
			if took := time.Since(start); jobs[0].ID != "a" || took > 5*time.Second {
				t.Errorf("%v after %v", idsOf(jobs), took)
			}
			if errs := w.Finish(b.ctx, queue.Done(jobs[0])); errs[0] != nil {
				t.Error(errs)
			}
			b.atRest()
			if len(woken.Jobs) > 0 {
				return // the answer was faster than the cut
			}
			// Had the claim been on its way for so long, it would take nothing: nobody would know of it.
			b.enqueue("b")
			if answer, err := b.rdb.Do(b.ctx, claim...).Result(); err != nil || answer != int64(0) {
				t.Errorf("the claim answered %v, %v", answer, err)
			}
		})
	}
}

// Of ends that go in two calls, one may be refused for good: the others are told that they are written.
func TestEndsAreJudgedByTheirOwnCall(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		b.enqueue("good", "bad")
		got := b.fetch(2)
		rdb.Set(b.ctx, wire.ArchivedKey(q), "no zset", 0)
		errs := b.worker.Finish(b.ctx, queue.Done(got.Jobs[0]), queue.Archive(got.Jobs[1], "x"))
		if errs[0] != nil || errs[1] == nil || errors.Is(errs[1], queue.ErrNotOwner) {
			t.Error(errs)
		}
		if rdb.Exists(b.ctx, wire.JobKey(q, "good")).Val() != 0 {
			t.Error("the end is not written")
		}
	})
}

// claimed is the claim that the server ran last, as it was sent.
func (b *bundle) claimed() []any {
	b.t.Helper()
	for _, entry := range b.rdb.SlowLogGet(b.ctx, 128).Val() {
		if len(entry.Args) == 17 && entry.Args[0] == "evalsha" && entry.Args[3] == wire.PendingKey(q) {
			claim := make([]any, len(entry.Args))
			for i, arg := range entry.Args {
				claim[i] = arg
			}
			return claim
		}
	}
	b.t.Fatal("no claim was run")
	return nil
}
