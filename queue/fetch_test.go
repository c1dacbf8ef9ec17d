package queue_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

func TestFetchTakesTheOldestFirst(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		b.enqueue("a", "b", "c", "d")

		got := b.fetch(3)
		if diff := cmp.Diff([]string{"a", "b", "c"}, idsOf(got.Jobs)); diff != "" {
			t.Error(diff)
		}
		if got.Left != 1 {
			t.Errorf("%d left, want 1", got.Left)
		}
		if diff := cmp.Diff(message("a"), got.Jobs[0].Message); diff != "" {
			t.Error(diff)
		}
		if got.Jobs[0].Attempt >= got.Jobs[1].Attempt {
			t.Error("attempts don't rise")
		}
		if d := b.now().Sub(got.Now); d < 0 || d > 10*time.Second {
			t.Errorf("Redis' time is off by %s", d)
		}
		if h := b.hash("a"); h["state"] != "active" {
			t.Errorf("state %q", h["state"])
		}
		if diff := cmp.Diff([]string{"c", "b", "a"}, rdb.LRange(b.ctx, wire.ActiveKey(q), 0, -1).Val()); diff != "" {
			t.Error(diff)
		}
		lease := time.Unix(int64(b.score(wire.LeaseKey(q), "a")), 0)
		if d := lease.Sub(got.Now); d < 25*time.Second || d > 31*time.Second {
			t.Errorf("lease in %s", d)
		}
		if b.worker.Held() != 3 {
			t.Errorf("holds %d", b.worker.Held())
		}
	})
}

func TestFetchLeavesAPausedQueueAlone(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		b.enqueue("a")
		rdb.Set(b.ctx, wire.PausedKey(q), "1", 0)
		if got := b.fetch(1); !got.Paused || len(got.Jobs) != 0 || got.Left != 1 {
			t.Errorf("got %+v", got)
		}
		rdb.Del(b.ctx, wire.PausedKey(q))
		if got := b.fetch(1); got.Paused || len(got.Jobs) != 1 {
			t.Errorf("got %+v", got)
		}
	})
}

func TestFetchDropsIDsWithoutABody(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		b.enqueue("first")
		for _, id := range ids(900) {
			rdb.LPush(b.ctx, wire.PendingKey(q), id)
		}
		rdb.Set(b.ctx, wire.JobKey(q, "odd"), "not a hash", 0)
		rdb.LPush(b.ctx, wire.PendingKey(q), "odd")
		b.enqueue("last")

		got := b.fetch(2)
		if diff := cmp.Diff([]string{"first", "last"}, idsOf(got.Jobs)); diff != "" {
			t.Error(diff)
		}
		if got.Orphans != 901 {
			t.Errorf("%d orphans, want 901", got.Orphans)
		}
		if n := rdb.Exists(b.ctx, wire.JobKey(q, "job-0000")).Val(); n != 0 {
			t.Error("an orphan got a hash")
		}
		b.finish(queue.Done(got.Jobs[0]), queue.Done(got.Jobs[1]))
		b.atRest()
	})
}

func TestFetchSetsUndecodableJobsAside(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		b.enqueue("good", "bad")
		rdb.HSet(b.ctx, wire.JobKey(q, "bad"), "msg", "\xff\xff\xff")

		got := b.fetch(10)
		if diff := cmp.Diff([]string{"good"}, idsOf(got.Jobs)); diff != "" {
			t.Error(diff)
		}
		if got.Undecodable != 1 {
			t.Errorf("%d undecodable", got.Undecodable)
		}
		if b.score(wire.UndecodableKey(q), "bad") < 0 || b.hash("bad")["msg"] != "\xff\xff\xff" {
			t.Error("the job is not kept for inspection")
		}
		b.finish(queue.Done(got.Jobs[0]))
		b.atRest()
	})
}

// A process must not run one job twice at once, whoever put it back into pending.
func TestFetchDoesNotTakeWhatStillRunsHere(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		b.enqueue("a", "b")
		first := b.take()
		// As if another had judged this worker dead.
		rdb.LRem(b.ctx, wire.ActiveKey(q), 0, "a")
		rdb.ZRem(b.ctx, wire.LeaseKey(q), "a")
		rdb.RPush(b.ctx, wire.PendingKey(q), "a")

		for range 2 {
			got := b.fetch(5)
			for _, job := range got.Jobs {
				if job.ID == "a" {
					t.Fatal("took a job whose earlier attempt runs")
				}
			}
			if got.HeldBack != 1 || got.Left != 0 {
				t.Errorf("held back %d, left %d", got.HeldBack, got.Left)
			}
		}
		if errs := b.worker.Finish(b.ctx, queue.Done(first)); errs[0] == nil {
			t.Error("the old attempt could write")
		}
		again := b.take()
		if again.ID != "a" || again.Attempt <= first.Attempt {
			t.Errorf("got %s attempt %d after %d", again.ID, again.Attempt, first.Attempt)
		}
		b.finish(queue.Done(again))
	})
}
