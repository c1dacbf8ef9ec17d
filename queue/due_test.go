package queue_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

func (b *bundle) due() queue.Dued {
	b.t.Helper()
	d, err := b.client.Due(b.ctx, q)
	if err != nil {
		b.t.Fatal(err)
	}
	return d
}

func (b *bundle) schedule(id string, at time.Time) {
	b.t.Helper()
	b.store(queue.Entry{Message: message(id), At: at})
}

func TestDueNeverMovesAJobEarly(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		at := b.now().Add(300 * time.Millisecond)
		b.schedule("soon", at)
		b.schedule("far", at.Add(time.Hour))
		for {
			d := b.due()
			if d.Moved == 0 {
				if d.Next <= 0 || d.Next > 301*time.Millisecond {
					t.Fatalf("next in %s", d.Next)
				}
				if !d.Now.Add(d.Next).Truncate(time.Millisecond).Equal(at.Truncate(time.Millisecond).Add(time.Millisecond)) &&
					!d.Now.Add(d.Next).Truncate(time.Millisecond).Equal(at.Truncate(time.Millisecond)) {
					t.Errorf("says %s, due at %s", d.Now.Add(d.Next), at)
				}
				continue
			}
			if d.Now.Before(at) {
				t.Errorf("moved %s early", at.Sub(d.Now))
			}
			break
		}
		if diff := cmp.Diff([]string{"soon"}, b.pending()); diff != "" {
			t.Error(diff)
		}
		if h := b.hash("soon"); h["state"] != "pending" || h["pending_since"] == "" {
			t.Errorf("%v", h)
		}
		if n := rdb.ZCard(b.ctx, wire.DueKey(q)).Val(); n != 1 {
			t.Errorf("%d in the index, want 1", n)
		}
	})
}

func TestDueTakesStocksSecondsAndDropsOrphans(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		c := asynq.NewClientFromRedisClient(rdb)
		for id, at := range map[string]time.Time{"past": time.Now().Add(time.Hour), "future": time.Now().Add(time.Hour)} {
			if _, err := c.Enqueue(asynq.NewTask("mail:send", nil), asynq.Queue(q), asynq.TaskID(id), asynq.ProcessAt(at)); err != nil {
				t.Fatal(err)
			}
		}
		rdb.ZAdd(b.ctx, wire.ScheduledKey(q), redis.Z{Score: float64(b.now().Unix() - 1), Member: "past"})
		rdb.ZAdd(b.ctx, wire.RetryKey(q), redis.Z{Score: 1, Member: "orphan"})
		d := b.due()
		if d.Moved != 1 || d.Orphans != 1 || d.Next < 59*time.Minute {
			t.Errorf("%+v", d)
		}
		if diff := cmp.Diff([]string{"past"}, b.pending()); diff != "" {
			t.Error(diff)
		}
		if rdb.Exists(b.ctx, wire.JobKey(q, "orphan")).Val() != 0 {
			t.Error("an orphan got a hash")
		}
	})
}

// Stock tools know nothing of the index.
func TestDueIgnoresWhatStockToolsLeftBehind(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		i := asynq.NewInspectorFromRedisClient(rdb)
		soon := b.now().Add(2 * time.Second) // all of them must be scheduled by then
		for _, id := range []string{"run", "archived", "deleted", "moved"} {
			b.schedule(id, soon)
		}
		for _, err := range []error{i.RunTask(q, "run"), i.ArchiveTask(q, "archived"), i.DeleteTask(q, "deleted")} {
			if err != nil {
				t.Fatal(err)
			}
		}
		// Run by a stock server that failed: now in retry, a minute ahead.
		rdb.ZRem(b.ctx, wire.ScheduledKey(q), "moved")
		rdb.ZAdd(b.ctx, wire.RetryKey(q), redis.Z{Score: float64(soon.Unix() + 60), Member: "moved"})
		rdb.HSet(b.ctx, wire.JobKey(q, "moved"), "state", "retry")

		eventually(t, "the index is empty", func() bool {
			if d := b.due(); d.Moved != 0 {
				t.Fatalf("moved %d", d.Moved)
			}
			return rdb.Exists(b.ctx, wire.DueKey(q)).Val() == 0
		})
		if diff := cmp.Diff([]string{"run"}, b.pending()); diff != "" {
			t.Error(diff)
		}
		if d := b.due(); d.Next < 50*time.Second {
			t.Errorf("next in %s", d.Next)
		}
	})
}

func TestDueMovesMoreThanOneBatch(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.New(t))
	at := b.now().Add(3 * time.Second) // all are stored before it
	entries := make([]queue.Entry, 1200)
	for i, id := range ids(1200) {
		entries[i] = queue.Entry{Message: message(id), At: at}
	}
	b.store(entries...)
	moved := 0
	eventually(t, "all are moved", func() bool {
		d := b.due()
		if moved += d.Moved; moved > 0 && moved < 1200 && d.Next != 0 {
			t.Fatalf("%d moved, the next in %s", moved, d.Next)
		}
		return moved == 1200
	})
}

// The keeper sleeps until the next job is due, and an earlier one wakes it.
func TestKeepIsOnTimeForAnEarlierJob(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		b.schedule("far", b.now().Add(time.Hour))
		waiter := b.waiter(b.ctx, b.worker)
		ctx, cancel := context.WithCancel(b.ctx)
		moved := make(chan queue.Kept, 10)
		var wg sync.WaitGroup
		wg.Go(func() { waiter.Keep(ctx, q, func(k queue.Kept) { moved <- k }) })

		eventually(t, "the keeper took the alarm of the first job", func() bool { return rdb.Exists(b.ctx, wire.AlarmKey(q)).Val() == 0 })
		at := b.now().Add(250 * time.Millisecond)
		b.schedule("soon", at)
		select {
		case k := <-moved:
			late := k.Dued.Now.Sub(at)
			if k.Err != nil || k.Dued.Moved != 1 || late < 0 {
				t.Errorf("%+v, %s late", k, late)
			}
			t.Logf("%s late", late)
			if late > time.Second {
				t.Errorf("%s late: the keeper slept on", late)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the keeper sleeps")
		}
		cancel()
		wg.Wait()
		_ = waiter.Close()
	})
}

// A delay counts by Redis' clock, however wrong the producer's is.
func TestDelaysGoByRedisClock(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{time.Hour, -time.Hour} {
		server := miniredis.RunT(t)
		rdb := redis.NewClient(&redis.Options{Addr: server.Addr()})
		t.Cleanup(func() { _ = rdb.Close() })
		b := setup(t, rdb)
		start := time.Now().Add(ahead).Truncate(time.Millisecond)
		server.SetTime(start)
		at := start.Add(30 * time.Second)
		e := queue.Entry{Message: message("a"), In: 30 * time.Second, At: time.Now()}
		if got := b.client.Enqueue(b.ctx, []queue.Entry{e})[0]; got.Err != nil || got.State != queue.Scheduled || !got.At.Equal(at) {
			t.Errorf("Redis %v ahead: %+v, want the start %v", ahead, got, at)
		}
		server.SetTime(at.Add(-time.Millisecond))
		if d := b.due(); d.Moved != 0 {
			t.Errorf("Redis %v ahead: early", ahead)
		}
		server.SetTime(at)
		if d := b.due(); d.Moved != 1 {
			t.Errorf("Redis %v ahead: not due at its time", ahead)
		}
	}
}
