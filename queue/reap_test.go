package queue_test

import (
	"errors"
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
		ended := float64(b.now().Unix() - 5)
		rdb.ZAdd(b.ctx, wire.LeaseKey(q), redis.Z{Score: ended, Member: "a"}, redis.Z{Score: ended, Member: "gone"})
		rdb.Del(b.ctx, wire.JobKey(q, "gone"))
		rdb.HSet(b.ctx, wire.OwnersKey(q), "never ran", "x:1")

		c, err := b.client.Clean(b.ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		if c.Back != 1 || c.Orphans != 2 {
			t.Errorf("%+v", c)
		}
		if diff := cmp.Diff([]string{"a"}, b.pending()); diff != "" {
			t.Error(diff)
		}
		b.finish(queue.Done(jobs[2]))
		b.atRest()
	})
}
