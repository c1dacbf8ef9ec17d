package queue_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

func TestReapGivesBackWhatTheDeadHeld(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		b.enqueue("a", "b", "c", "d", "stolen")
		want := []string{"e", "d", "c", "a"}
		dead := b.other("dead")
		jobs := b.fetchAs(dead, 4).Jobs
		mine := b.fetch(1).Jobs[0] // "stolen", the last one
		b.enqueue("e")
		// "b" was taken by a stock server meanwhile.
		rdb.ZAdd(b.ctx, wire.LeaseKey(q), redis.Z{Score: float64(b.now().Unix() + 1000), Member: "b"})

		beat := b.beatOf("dead")
		if _, alive, err := b.client.Reap(b.ctx, q, queue.LastBeat{Worker: "dead", At: beat.At.Add(-time.Second)}, 3); err != nil || !alive {
			t.Errorf("a worker that has beaten since was reaped: %v", err)
		}
		got, alive, err := b.client.Reap(b.ctx, q, beat, 3)
		if err != nil || alive {
			t.Fatal(alive, err)
		}
		if len(got) != 3 || got[0].Crashes != 1 {
			t.Errorf("%+v", got)
		}
		if diff := cmp.Diff(want, b.pending()); diff != "" {
			t.Error(diff)
		}
		if h := b.hash("a"); h["state"] != "pending" || h["bellhop_crashes"] != "1" || b.stored("a").Retried != 0 {
			t.Errorf("%v", h)
		}
		for _, job := range jobs {
			if err := dead.Finish(b.ctx, queue.Done(job))[0]; !errors.Is(err, queue.ErrNotOwner) {
				t.Errorf("the dead wrote %s: %v", job.ID, err)
			}
		}
		b.finish(queue.Done(mine))
		beats, err := b.client.Beats(b.ctx, q)
		if err != nil || len(beats) != 1 || beats[0].Worker != b.worker.ID() {
			t.Errorf("%v, %v", beats, err)
		}
	})
}

func (b *bundle) beatOf(worker string) queue.LastBeat {
	b.t.Helper()
	beats, err := b.client.Beats(b.ctx, q)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, beat := range beats {
		if beat.Worker == worker {
			return beat
		}
	}
	b.t.Fatalf("%s never beat", worker)
	return queue.LastBeat{}
}

func TestCleanGivesBackWhatNobodySpokeFor(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		b.enqueue("a", "gone", "kept")
		jobs := b.fetch(3).Jobs
		b.lease("a", b.now().Unix()-5)
		b.lease("gone", b.now().Unix()-5)
		rdb.Del(b.ctx, wire.JobKey(q, "gone"))

		c, err := b.client.Clean(b.ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		if c.Back != 1 || c.Orphans != 1 {
			t.Errorf("%+v", c)
		}
		if diff := cmp.Diff([]string{"a"}, b.pending()); diff != "" {
			t.Error(diff)
		}
		b.finish(queue.Done(jobs[2]))
		b.atRest()
	})
}

// A worker that was thought dead comes back under another number: what it took before stays lost.
func TestAWorkerThatComesBackOwnsWhatItTakesThen(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		b.enqueue("a", "b")
		lost := b.take()
		if _, _, err := b.client.Reap(b.ctx, q, b.beatOf(b.worker.ID()), 0); err != nil {
			t.Fatal(err)
		}
		heir := b.fetchAs(b.other("heir"), 1).Jobs
		mine := b.fetch(2).Jobs
		if len(heir) != 1 || heir[0].ID != "a" || len(mine) != 1 || mine[0].ID != "b" {
			t.Fatalf("the heir has %v, the other %v", idsOf(heir), idsOf(mine))
		}
		errs := b.worker.Finish(b.ctx, queue.Done(lost), queue.Done(mine[0]))
		if !errors.Is(errs[0], queue.ErrNotOwner) || errs[1] != nil {
			t.Error(errs)
		}
		numbers := rdb.HGetAll(b.ctx, wire.MarksKey(q)).Val()
		if wire.MarkNumber(numbers["heir"]) == 0 || wire.MarkNumber(numbers["heir"]) == wire.MarkNumber(numbers[b.worker.ID()]) {
			t.Errorf("numbers %v", numbers)
		}
	})
}

// A number is given to one worker at a time. When all are given, a fetch says so and takes nothing.
func TestWorkersNumbersDiffer(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		b.enqueue("a", "b")
		taken := make([]any, 0, 2*4095)
		for n := 1; n <= 4095; n++ {
			if n != 17 && n != 18 {
				taken = append(taken, fmt.Sprint("worker", n), fmt.Sprint(n, " session-f1"))
			}
		}
		rdb.HSet(b.ctx, wire.MarksKey(q), taken...)
		b.fetchAs(b.other("one"), 1)
		b.fetchAs(b.other("two"), 1)
		if one, two := rdb.HGet(b.ctx, wire.MarksKey(q), "one").Val(), rdb.HGet(b.ctx, wire.MarksKey(q), "two").Val(); wire.MarkNumber(one) != 17 || wire.MarkNumber(two) != 18 {
			t.Errorf("numbers %s and %s", one, two)
		}
		b.enqueue("c")
		if _, err := b.worker.Fetch(b.ctx, q, 1); err == nil {
			t.Error("a worker without a number could fetch")
		}
		if got := b.pending(); len(got) != 1 || got[0] != "c" {
			t.Errorf("pending %v", got)
		}
	})
}
