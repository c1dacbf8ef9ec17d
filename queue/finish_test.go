package queue_test

import (
	"errors"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

func TestDoneDeletesTheJobAndItsLock(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		m := message("a")
		m.UniqueKey = wire.UniqueKey(q, m.Type, m.Payload)
		b.store(queue.Entry{Message: m, UniqueFor: time.Hour})
		stranger := message("b")
		stranger.UniqueKey = wire.UniqueKey(q, "other", nil)
		b.store(queue.Entry{Message: stranger})
		rdb.Set(b.ctx, stranger.UniqueKey, "somebody else", 0)

		got := b.fetch(2)
		b.finish(queue.Done(got.Jobs[0]), queue.Done(got.Jobs[1]))

		if n := rdb.Exists(b.ctx, wire.JobKey(q, "a"), m.UniqueKey).Val(); n != 0 {
			t.Error("the job or its lock is left")
		}
		if rdb.Get(b.ctx, stranger.UniqueKey).Val() != "somebody else" {
			t.Error("another job's lock was taken")
		}
		b.atRest()
		day := wire.ProcessedKey(q, got.Now)
		for _, key := range []string{wire.ProcessedTotalKey(q), day} {
			if rdb.Get(b.ctx, key).Val() != "2" {
				t.Errorf("%s = %s, want 2", key, rdb.Get(b.ctx, key).Val())
			}
		}
		if ttl := rdb.TTL(b.ctx, day).Val(); ttl < 89*24*time.Hour || ttl > 91*24*time.Hour {
			t.Errorf("the day's counter lives for %s", ttl)
		}
		if b.worker.Held() != 0 {
			t.Errorf("holds %d", b.worker.Held())
		}
	})
}

func TestCompleteKeepsTheJobForItsRetention(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		m := message("a")
		m.Retention = 600
		b.store(queue.Entry{Message: m})
		job := b.take()
		b.finish(queue.Complete(job, []byte("42")))

		h, stored, now := b.hash("a"), b.stored("a"), b.now().Unix()
		if h["state"] != "completed" || h["result"] != "42" {
			t.Errorf("state %q result %q", h["state"], h["result"])
		}
		if _, ok := h["pending_since"]; ok {
			t.Error("pending_since is left")
		}
		if d := now - stored.CompletedAt; d < 0 || d > 5 {
			t.Errorf("completed %d s ago", d)
		}
		if got := b.score(wire.CompletedKey(q), "a"); int64(got) != stored.CompletedAt+600 {
			t.Errorf("expires at %.0f, want %d", got, stored.CompletedAt+600)
		}
		b.atRest()
	})
}

func TestRetrySnoozeAndAgain(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		b.enqueue("retry", "again", "snooze")
		got := b.fetch(3)
		before := b.now()
		b.finish(
			queue.Retry(got.Jobs[0], 1500*time.Millisecond, "boom\xff").WithResult([]byte("half")),
			queue.Again(got.Jobs[1], time.Second, "not now"),
			queue.Snooze(got.Jobs[2], time.Minute),
		)
		after := b.now()

		retried := b.stored("retry")
		if retried.Retried != 1 || retried.ErrorMsg != "boom\uFFFD" || retried.LastFailedAt == 0 || b.hash("retry")["result"] != "half" {
			t.Errorf("retry: %+v", retried)
		}
		if m := b.stored("again"); m.Retried != 0 || m.ErrorMsg != "not now" || m.LastFailedAt == 0 {
			t.Errorf("again: %+v", m)
		}
		if diff := cmp.Diff(message("snooze"), b.stored("snooze")); diff != "" {
			t.Errorf("snooze changed the message: %s", diff)
		}
		exact := b.score(wire.DueKey(q), "retry")
		if exact < float64(before.UnixMilli()+1500) || exact > float64(after.UnixMilli()+1500) {
			t.Errorf("due at %.0f", exact)
		}
		if second := b.score(wire.RetryKey(q), "retry"); second != float64((int64(exact)+999)/1000) {
			t.Errorf("asynq's second is %f for %f ms", second, exact)
		}
		for key, want := range map[string]string{wire.ProcessedTotalKey(q): "1", wire.FailedTotalKey(q): "1", wire.FailedKey(q, after): "1"} {
			if v := rdb.Get(b.ctx, key).Val(); v != want {
				t.Errorf("%s = %q, want %q", key, v, want)
			}
		}
		b.atRest()
	})
}

func TestArchiveReleasesTheLock(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		m := message("a")
		m.UniqueKey = wire.UniqueKey(q, m.Type, m.Payload)
		b.store(queue.Entry{Message: m, UniqueFor: time.Hour})
		b.finish(queue.Archive(b.take(), "dead"))
		if m := b.stored("a"); m.ErrorMsg != "dead" || m.LastFailedAt == 0 || m.Retried != 0 {
			t.Errorf("%+v", m)
		}
		if b.hash("a")["state"] != "archived" || b.score(wire.ArchivedKey(q), "a") < 0 {
			t.Error("not archived")
		}
		if rdb.Exists(b.ctx, m.UniqueKey).Val() != 0 {
			t.Error("a dead job keeps its lock")
		}
		b.atRest()
	})
}

// asynq's script breaks on 9,000 archived jobs that are too old, and leaves the bodies of those over its limit.
func TestArchiveTrims(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.New(t))
	old := float64(b.now().Add(-91 * 24 * time.Hour).Unix())
	p := b.rdb.Pipeline()
	for _, id := range ids(9000) {
		p.ZAdd(b.ctx, wire.ArchivedKey(q), redis.Z{Score: old, Member: id})
		p.HSet(b.ctx, wire.JobKey(q, id), "msg", "x", "state", "archived", "unique_key", "asynq:{mail}:unique:"+id)
		p.Set(b.ctx, "asynq:{mail}:unique:"+id, id, 0)
	}
	if _, err := p.Exec(b.ctx); err != nil {
		t.Fatal(err)
	}
	b.enqueue("new")
	b.finish(queue.Archive(b.take(), "dead"))
	if n := b.rdb.ZCard(b.ctx, wire.ArchivedKey(q)).Val(); n != 8001 {
		t.Errorf("%d archived after one call, want 8001", n)
	}
	for more := true; more; {
		c, err := b.client.Clean(b.ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		more = c.More
	}
	if got := b.rdb.ZRange(b.ctx, wire.ArchivedKey(q), 0, -1).Val(); len(got) != 1 || got[0] != "new" {
		t.Errorf("left: %d", len(got))
	}
	if keys := b.rdb.Keys(b.ctx, "asynq:*job-*").Val(); len(keys) != 0 {
		t.Errorf("%d bodies or locks are left", len(keys))
	}
}

func TestHandBackPutsJobsWhereTheyWere(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		b.enqueue("a", "b", "c", "d", "e")
		want := b.pending()
		since := b.hash("a")["pending_since"]
		got := b.fetch(4)
		b.finish(queue.HandBack(got.Jobs[2]), queue.HandBack(got.Jobs[0]), queue.HandBack(got.Jobs[3]), queue.HandBack(got.Jobs[1]))
		if diff := cmp.Diff(want, b.pending()); diff != "" {
			t.Error(diff)
		}
		if h := b.hash("a"); h["state"] != "pending" || h["pending_since"] != since {
			t.Errorf("%v", h)
		}
		if diff := cmp.Diff(message("a"), b.stored("a")); diff != "" {
			t.Error(diff)
		}
		b.atRest()
	})
}

func TestHandBackKeepsTheOrderOverManyCalls(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.New(t))
	b.enqueue(ids(1300)...)
	want := b.pending()
	var ends []queue.End
	for len(ends) < 1300 {
		for _, job := range b.fetch(500).Jobs {
			ends = append(ends, queue.HandBack(job))
		}
	}
	b.finish(ends...)
	if diff := cmp.Diff(want, b.pending()); diff != "" {
		t.Error(diff)
	}
	b.atRest()
}

// What a zombie tries after its job was given to another changes nothing.
func TestAZombieCannotWrite(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		m := message("a")
		m.Retention = 60
		b.store(queue.Entry{Message: m})
		zombie := b.take()
		// Given to another.
		heir := b.other("heir")
		rdb.LMove(b.ctx, wire.ActiveKey(q), wire.PendingKey(q), "LEFT", "RIGHT")
		rdb.ZRem(b.ctx, wire.LeaseKey(q), "a")
		now := b.fetchAs(heir, 1).Jobs[0]
		rdb.Del(b.ctx, wire.CallsKey(q)) // what legitimately changes: the record of calls
		before := dump(t, rdb)

		for name, end := range map[string]queue.End{
			"done": queue.Done(zombie), "complete": queue.Complete(zombie, []byte("x")), "retry": queue.Retry(zombie, 0, "x"),
			"again": queue.Again(zombie, 0, "x"), "snooze": queue.Snooze(zombie, 0), "archive": queue.Archive(zombie, "x"), "back": queue.HandBack(zombie),
		} {
			if err := b.worker.Finish(b.ctx, end)[0]; !errors.Is(err, queue.ErrNotOwner) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := b.worker.WriteResult(b.ctx, zombie, []byte("x")); !errors.Is(err, queue.ErrNotOwner) {
			t.Errorf("result: %v", err)
		}
		rdb.Del(b.ctx, wire.CallsKey(q))
		if diff := cmp.Diff(before, dump(t, rdb)); diff != "" {
			t.Errorf("a zombie wrote:\n%s", diff)
		}
		if err := heir.WriteResult(b.ctx, now, []byte("mine")); err != nil || b.hash("a")["result"] != "mine" {
			t.Errorf("the owner could not write: %v", err)
		}
		if err := heir.Finish(b.ctx, queue.Complete(now, nil))[0]; err != nil {
			t.Error(err)
		}
		if b.hash("a")["result"] != "mine" {
			t.Error("an end without a result took it away")
		}
	})
}

// A stock server that found the lease ended writes no owner; its lease tells.
func TestAJobThatStockTookIsLost(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		b.enqueue("a", "b")
		jobs := b.fetch(2).Jobs
		rdb.ZAdd(b.ctx, wire.LeaseKey(q), redis.Z{Score: float64(b.now().Unix() + 30), Member: "a"})

		if err := b.worker.Finish(b.ctx, queue.Done(jobs[0]))[0]; !errors.Is(err, queue.ErrNotOwner) {
			t.Errorf("the end of a stolen job was written: %v", err)
		}
		b.finish(queue.Done(jobs[1]))
	})
}

func TestBeatExtendsWhatIsOwnedAndTellsWhatIsNot(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		b.enqueue("stolen", "taken", "mine")
		jobs := b.fetch(3).Jobs
		early := b.now().Unix() - 100
		b.lease("taken", early+30)
		b.lease("mine", early+30)
		rdb.ZAdd(b.ctx, wire.LeaseKey(q), redis.Z{Score: float64(early + 30), Member: "stolen"}) // by a stock server
		b.steal("taken")
		taken := b.score(wire.LeaseKey(q), "taken")

		for range 2 {
			beats := b.worker.Beat(b.ctx)
			if len(beats) != 1 || beats[0].Err != nil {
				t.Fatalf("%+v", beats)
			}
			if !beats[0].Keeper {
				t.Error("alone, and not the keeper")
			}
			if beats[0].Lost == nil {
				break // told once
			}
			var lost []string
			for _, job := range beats[0].Lost {
				lost = append(lost, job.ID)
			}
			if len(lost) != 2 || lost[0] == "mine" || lost[1] == "mine" {
				t.Errorf("lost %v", lost)
			}
		}
		if got := b.score(wire.LeaseKey(q), "mine"); int64(got) < early+120 {
			t.Errorf("the lease was not extended: %f", got)
		}
		if b.score(wire.LeaseKey(q), "stolen") != float64(early+30) || b.score(wire.LeaseKey(q), "taken") != taken {
			t.Error("another's lease was written")
		}
		// The beat must not make the stolen job look like ours.
		errs := b.worker.Finish(b.ctx, queue.Done(jobs[0]), queue.Done(jobs[1]), queue.Done(jobs[2]))
		if !errors.Is(errs[0], queue.ErrNotOwner) || !errors.Is(errs[1], queue.ErrNotOwner) || errs[2] != nil {
			t.Errorf("%v", errs)
		}
	})
}

func TestALongSilentWorkerMustBeatBeforeItFetches(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		b.enqueue("a", "b")
		job := b.take()
		late := float64(b.now().UnixMilli() - 20_000)
		rdb.ZAdd(b.ctx, wire.BeatsKey(q), redis.Z{Score: late, Member: b.worker.ID()})
		if got := b.fetch(1); len(got.Jobs) != 1 {
			t.Fatalf("%+v", got)
		}
		if beat := b.score(wire.BeatsKey(q), b.worker.ID()); beat <= late {
			t.Error("fetched without a beat")
		}
		b.finish(queue.Done(job))
	})
}

// Many callers share calls, and each gets its own answer.
func TestConcurrentEndsAreEachAnswered(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		b.enqueue(ids(600)...)
		var jobs []*queue.Job
		for len(jobs) < 600 {
			jobs = append(jobs, b.fetch(200).Jobs...)
		}
		for i := 0; i < 600; i += 10 {
			b.steal(jobs[i].ID)
		}
		errs := make([]error, len(jobs))
		var wg sync.WaitGroup
		for i, job := range jobs {
			wg.Go(func() { errs[i] = b.worker.Finish(b.ctx, queue.Done(job))[0] })
		}
		wg.Wait()
		for i, err := range errs {
			if lost := i%10 == 0; lost != errors.Is(err, queue.ErrNotOwner) || !lost && err != nil {
				t.Errorf("job %d: %v", i, err)
			}
		}
		if n := rdb.LLen(b.ctx, wire.ActiveKey(q)).Val(); n != 60 {
			t.Errorf("%d active, want 60", n)
		}
		if v := rdb.Get(b.ctx, wire.ProcessedTotalKey(q)).Val(); v != "540" {
			t.Errorf("processed %s", v)
		}
	})
}

// dump is the whole keyspace, as text.
func dump(t testing.TB, rdb redis.UniversalClient) map[string]any {
	t.Helper()
	ctx := t.Context()
	out := make(map[string]any)
	keys, err := rdb.Keys(ctx, "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		var v any
		var err error
		switch rdb.Type(ctx, key).Val() {
		case "string":
			v, err = rdb.Get(ctx, key).Result()
		case "list":
			v, err = rdb.LRange(ctx, key, 0, -1).Result()
		case "hash":
			v, err = rdb.HGetAll(ctx, key).Result()
		case "zset":
			v, err = rdb.ZRangeWithScores(ctx, key, 0, -1).Result()
		case "set":
			v, err = rdb.SMembersMap(ctx, key).Result()
		}
		if err != nil {
			t.Fatal(err)
		}
		out[key] = v
	}
	return out
}

// A handler that asks for the longest delay there is must not be tried again at once.
func TestEndlessDelays(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		b.enqueue("retry", "snooze")
		jobs := b.fetch(2).Jobs
		b.finish(queue.Retry(jobs[0], math.MaxInt64, "no"), queue.Snooze(jobs[1], math.MaxInt64-1))
		if d := b.due(); d.Moved != 0 {
			t.Errorf("%d jobs are due at once", d.Moved)
		}
		for _, id := range []string{"retry", "snooze"} {
			if wait := b.score(wire.RetryKey(q), id) - float64(b.now().Unix()); wait < (queue.LongestTime / 2).Seconds() {
				t.Errorf("%s waits for %v s", id, wait)
			}
		}
	})
}
