package queue_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

// crash lets a new worker take up to n jobs and die.
func (b *bundle) crash(name string, n int) (held []string, reaped []queue.Reaped) {
	b.t.Helper()
	w := b.other(name)
	held = idsOf(b.fetchAs(w, n).Jobs)
	reaped, alive, err := b.client.Reap(b.ctx, q, b.beatOf(name), 3)
	if err != nil || alive {
		b.t.Fatal(alive, err)
	}
	return held, reaped
}

func TestSuspectsRunAlone(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		b.enqueue("poison", "a", "b")
		for i := range 2 {
			if held, reaped := b.crash(fmt.Sprint("w", i), 10); len(held) != 3 || len(reaped) != 3 {
				t.Fatalf("crash %d: held %v, reaped %v", i, held, reaped)
			}
		}
		// Each is one crash from quarantine now.
		b.enqueue("fresh")
		held, reaped := b.crash("w2", 10)
		if len(held) != 2 || held[0] != "poison" || held[1] != "fresh" {
			t.Fatalf("held %v, want one suspect and what is none", held)
		}
		for _, job := range reaped {
			if want := job.ID == "poison"; job.Quarantined != want {
				t.Errorf("%+v", job)
			}
		}
		h, m := b.hash("poison"), b.stored("poison")
		if h["state"] != "archived" || h["bellhop_end"] != "quarantined" || !strings.Contains(m.ErrorMsg, "died 3 times") || m.Retried != 0 || m.LastFailedAt == 0 {
			t.Errorf("%v, %+v", h, m)
		}
		if crashes := b.hash("fresh")["bellhop_crashes"]; crashes != "" {
			t.Errorf("the job beside a suspect was charged %s crashes", crashes)
		}
		// The innocents: one, and once that has ended, the other.
		first := b.fetch(10)
		if got := idsOf(first.Jobs); len(got) != 2 || first.HeldBack != 1 {
			t.Fatalf("%v, held back %d", got, first.HeldBack)
		}
		for _, job := range first.Jobs {
			b.finish(queue.Done(job))
		}
		second := b.fetch(10)
		if len(second.Jobs) != 1 || second.HeldBack != 0 {
			t.Fatalf("%v, held back %d", idsOf(second.Jobs), second.HeldBack)
		}
		b.finish(queue.Done(second.Jobs[0]))
		b.atRest()
		if processed, failed := rdb.Get(b.ctx, wire.ProcessedTotalKey(q)).Val(), rdb.Get(b.ctx, wire.FailedTotalKey(q)).Val(); processed != "4" || failed != "1" {
			t.Errorf("processed %s, failed %s", processed, failed)
		}
	})
}

func TestFrozenIsNoCrash(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.New(t))
	b.enqueue("a")
	b.fetchAs(b.other("frozen"), 1)
	if jobs, _, err := b.client.Reap(b.ctx, q, b.beatOf("frozen"), 0); err != nil || len(jobs) != 1 || jobs[0].Crashes != 0 {
		t.Fatalf("%+v, %v", jobs, err)
	}
	if h := b.hash("a"); h["bellhop_crashes"] != "" || h["state"] != "pending" {
		t.Errorf("%v", h)
	}
}

func TestCleanLeavesTheDeadToTheirReaper(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.New(t))
	b.enqueue("reaped", "of stock", "of living stock")
	b.fetchAs(b.other("dead"), 1)
	b.fetch(2)
	now := b.now()
	b.rdb.ZAdd(b.ctx, wire.BeatsKey(q), redis.Z{Score: float64(now.Add(-time.Minute).UnixMilli()), Member: "dead"})
	b.lease("reaped", now.Unix()-90)
	b.rdb.ZAdd(b.ctx, wire.LeaseKey(q),
		redis.Z{Score: float64(now.Unix() - 90), Member: "of stock"},
		redis.Z{Score: float64(now.Unix() - 35), Member: "of living stock"})
	c, err := b.client.Clean(b.ctx, q)
	if err != nil || c.Back != 1 {
		t.Fatalf("%+v, %v", c, err)
	}
	if got := b.pending(); len(got) != 1 || got[0] != "of stock" {
		t.Errorf("%v", got)
	}
}

func TestDurableWaitsForReplicas(t *testing.T) {
	t.Parallel()
	set := redistest.Sentinel(t)
	client := queue.New(set.Client(), queue.Durable(1, 2*time.Second))
	if got := client.Enqueue(t.Context(), []queue.Entry{{Message: message("a")}, {Message: message("b")}}); got[0].Err != nil || got[1].Err != nil {
		t.Fatal(got)
	}
	for _, id := range []string{"a", "b"} {
		if set.Replica.Client().Exists(t.Context(), wire.JobKey(q, id)).Val() != 1 {
			t.Errorf("job %s was acknowledged and is not on the replica", id)
		}
	}
	greedy := queue.New(set.Client(), queue.Durable(2, 50*time.Millisecond))
	if got := greedy.Enqueue(t.Context(), []queue.Entry{{Message: message("c")}}); !errors.Is(got[0].Err, queue.ErrNotReplicated) {
		t.Errorf("two replicas of one confirmed: %v", got[0].Err)
	}
	// Too few replicas make no new job of a duplicate, and it says so of the one that is there.
	if got := greedy.Enqueue(t.Context(), []queue.Entry{{Message: message("a")}, {Message: message("e")}}); !errors.Is(got[0].Err, queue.ErrIDTaken) ||
		!errors.Is(got[0].Err, queue.ErrNotReplicated) || got[0].Holder != "a" || !errors.Is(got[1].Err, queue.ErrNotReplicated) {
		t.Errorf("%+v", got)
	}
	if got := queue.New(set.Client(), queue.Durable(-1, 0)).Enqueue(t.Context(), []queue.Entry{{Message: message("f")}}); got[0].Err == nil {
		t.Error("a negative number of replicas was taken")
	}
	cluster := queue.New(redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:1"}}), queue.Durable(1, 0))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if got := cluster.Enqueue(ctx, []queue.Entry{{Message: message("d")}}); got[0].Err == nil || !strings.Contains(got[0].Err.Error(), "Cluster") {
		t.Errorf("%v", got[0].Err)
	}
}

// What a process held is counted over all its queues: with a job of another queue beside it, none is known to be the culprit.
func TestReapAcrossQueues(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		enqueue := func(queueName, id string) {
			m := message(id)
			m.Queue = queueName
			b.store(queue.Entry{Message: m})
		}
		die := func(worker string) map[string]bool {
			w, err := b.client.NewWorker(worker, "a", "b")
			if err != nil {
				t.Fatal(err)
			}
			quarantined := make(map[string]bool)
			var beats []queue.LastBeat
			for _, name := range w.Queues() {
				if _, err := w.Fetch(b.ctx, name, 10); err != nil {
					t.Fatal(err)
				}
				list, err := b.client.Beats(b.ctx, name)
				if err != nil || len(list) != 1 {
					t.Fatal(list, err)
				}
				beats = append(beats, list...)
			}
			// As others do it, one queue after the other.
			for i, name := range w.Queues() {
				jobs, alive, err := queue.New(rdb).Reap(b.ctx, name, beats[i], 1)
				if err != nil || alive {
					t.Fatal(alive, err)
				}
				for _, job := range jobs {
					if job.Quarantined {
						quarantined[job.ID] = true
					}
				}
			}
			return quarantined
		}
		enqueue("a", "innocent")
		enqueue("b", "neighbour")
		if got := die("first"); len(got) != 0 {
			t.Errorf("%v were quarantined, though the process held two jobs", got)
		}
		// Both are suspects now, and one process holds one of them.
		if got := die("second"); len(got) != 1 {
			t.Errorf("%v were quarantined, want the one suspect of the process", got)
		}
	})
}

// Who comes to an end in its handler has survived it: crashes count in a row.
func TestCrashesAreForgiven(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		m := message("a")
		m.Retention = 60
		b.store(queue.Entry{Message: m})
		inspector := asynq.NewInspectorFromRedisClient(rdb)
		for name, end := range map[string]func(*queue.Job) queue.End{
			"snooze":  func(j *queue.Job) queue.End { return queue.Snooze(j, time.Hour) },
			"retry":   func(j *queue.Job) queue.End { return queue.Retry(j, time.Hour, "no") },
			"again":   func(j *queue.Job) queue.End { return queue.Again(j, time.Hour, "no") },
			"archive": func(j *queue.Job) queue.End { return queue.Archive(j, "no") },
		} {
			b.crash(name, 1)
			b.crash(name+"-again", 1)
			b.rdb.HSet(b.ctx, wire.JobKey(q, "a"), "bellhop_end", "cancelled") // from an earlier life
			b.finish(end(b.take()))
			if h := b.hash("a"); h["bellhop_crashes"]+h["bellhop_suspect"]+h["bellhop_end"] != "" {
				t.Errorf("after %s: %v", name, h)
			}
			if err := inspector.RunTask(q, "a"); err != nil {
				t.Fatal(err)
			}
		}
		b.finish(queue.Cancel(b.take()))
		if h := b.hash("a"); h["bellhop_end"] != "cancelled" {
			t.Errorf("cancelled: %v", h)
		}
		if err := inspector.RunTask(q, "a"); err != nil {
			t.Fatal(err)
		}
		b.crash("last", 1)
		b.finish(queue.Complete(b.take(), nil))
		if h := b.hash("a"); h["state"] != "completed" || h["bellhop_crashes"]+h["bellhop_suspect"]+h["bellhop_end"] != "" {
			t.Errorf("completed: %v", h)
		}
	})
}

// deafToReplicas loses the first answers of WAIT, not those of the script before it.
type deafToReplicas struct{ lost atomic.Int32 }

func (*deafToReplicas) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (*deafToReplicas) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (h *deafToReplicas) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		last := cmds[len(cmds)-1]
		if last.Name() == "wait" && cmds[0].Err() == nil && h.lost.Add(1) <= 2 {
			last.SetErr(io.EOF)
			return io.EOF
		}
		return err
	}
}

func TestALostConfirmationIsAskedForAgain(t *testing.T) {
	t.Parallel()
	rdb := redistest.Sentinel(t).Client()
	hook := new(deafToReplicas)
	rdb.AddHook(hook)
	client := queue.New(rdb, queue.Durable(1, 2*time.Second))
	if got := client.Enqueue(t.Context(), []queue.Entry{{Message: message("a")}}); got[0].Err != nil || got[0].State != queue.Pending {
		t.Errorf("%+v", got[0])
	}
	if n := hook.lost.Load(); n != 3 {
		t.Errorf("the replicas were asked %d times", n)
	}
	if n := rdb.LLen(t.Context(), wire.PendingKey(q)).Val(); n != 1 {
		t.Errorf("%d jobs are stored", n)
	}
}
