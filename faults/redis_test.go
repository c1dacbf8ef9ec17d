package faults

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
)

func TestFaultF05RedisRestarts(t *testing.T) {
	t.Parallel()
	check(t, "F5", redisRestarts, withRedis(redistest.WithAOF()))
}

// redisRestarts: Redis is away for 6 s, and all running jobs finish meanwhile.
func redisRestarts(r *rig) figure {
	w := r.worker(concurrency(20))
	ids := r.enqueue(20, work{Gate: "go"})
	r.running(ids)
	r.server.Kill()
	r.ledger.open("go")
	away := time.Now()
	r.ledger.until(patience, "the jobs finish", func(h history) bool { return h.runs() == len(ids) })
	pause(r.t.Context(), 6*time.Second-time.Since(away)) // the length of the fault
	r.server.Restart()
	r.client, r.theirs = nil, nil
	r.use(r.server.Client(), r.server.URL())
	r.atRest(r.recovery())
	r.worker().stop(patience) // nothing is left that another would run
	h := r.drained(patience)
	if !r.stock() {
		r.counted(len(ids), 0)
		if n := w.said("Redis fails"); n != 1 {
			r.t.Errorf("the outage was told %d times, want once", n)
		}
		eventually(r.t, patience, "the worker says that Redis is back", func() bool { return w.said("Redis answers again") > 0 })
	}
	return measured(h.runs() == len(ids), "%d runs of %d", h.runs(), len(ids))
}

func TestFaultF07RedisKilled(t *testing.T) {
	t.Parallel()
	check(t, "F7", redisKilled, withoutRedis())
}

// redisKilled: kill -9 of Redis under load. With AOF always nothing acknowledged is lost. With everysec Redis answers before it has
// written, and puts the write off for up to 2 s while a sync is under way: what was acknowledged in that time may be lost, and
// nothing else. Without AOF the worker warns at its start.
func redisKilled(r *rig) figure {
	lost := make(map[string]int)
	for _, policy := range []string{"everysec", "always"} {
		sub := newRig(r.t, r.fleet, withRedis(redistest.WithAOF(), redistest.WithConfig("appendfsync", policy)))
		sub.worker()
		stop := sub.producer(time.Millisecond, work{})
		sub.ledger.until(patience, "jobs run", func(h history) bool { return h.runs() > 200 })
		at := time.Now()
		sub.server.Kill()
		sub.server.Restart()
		sub.ledger.until(patience, "more jobs run", func(h history) bool { return h.runs() > 400 })
		stop()
		sub.ledger.until(sub.recovery(), "all jobs run", func(history) bool { return len(sub.lost()) > 0 || len(sub.unfinished()) == 0 })
		for _, id := range sub.lost() {
			lost[policy]++
			if policy == "always" || at.Sub(sub.acked[id]) > 2*time.Second || sub.acked[id].After(at) {
				r.t.Errorf("AOF %s: job %s was lost, acknowledged %v before the kill", policy, id, at.Sub(sub.acked[id]))
			}
			delete(sub.acked, id)
		}
		sub.drained(patience)
	}
	if !r.stock() {
		snapshots := redistest.Start(r.t, redistest.WithConfig("save", "3600 1"))
		w := r.worker(via(snapshots.URL()))
		if w.said("keeps snapshots only") != 1 {
			r.t.Error("the worker does not warn of a Redis without AOF")
		}
	}
	got := measured(lost["always"] == 0, "lost: always %d, everysec %d (acknowledged in the last 2 s)", lost["always"], lost["everysec"])
	if lost["everysec"] > 0 {
		got = got.missing("with everysec Redis answers before it has written, and may put the write off for 2 s")
	}
	return got
}

// producer enqueues a job every so often until it is stopped. What is refused meanwhile is not acknowledged.
func (r *rig) producer(every time.Duration, w work, opts ...jobOption) (stop func()) {
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_ = r.enqueueID(ctx, r.nextID(), w, opts...)
			pause(ctx, every)
		}
	}()
	stop = func() { cancel(); <-done }
	r.t.Cleanup(stop)
	return stop
}

// unfinished are the acknowledged jobs that were not executed yet.
func (r *rig) unfinished() []string {
	h := historyOf(r.ledger.entries())
	var ids []string
	for _, id := range r.acknowledged() {
		if len(h.ends[id]) == 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

func TestFaultF10RedisFull(t *testing.T) {
	t.Parallel()
	check(t, "F10", redisFull)
}

// redisFull: Redis refuses what needs memory. The jobs it has are run and end; the leases of the running ones are kept; and
// nobody hammers it.
func redisFull(r *rig) figure {
	ctx := r.t.Context()
	r.worker(concurrency(5))
	long := r.enqueue(1, work{Gate: "go"})
	r.running(long)
	queued := r.enqueue(200, work{For: 100 * time.Millisecond})
	leased := r.rdb.ZScore(ctx, wire.LeaseKey(q), long[0]).Val()
	r.configure("maxmemory", "1")

	if err := r.enqueueID(ctx, "refused", work{}); err == nil {
		r.t.Error("a full Redis took a job")
	}
	kept := false
	began := time.Now()
	drained := 0
	for time.Since(began) < 12*time.Second && (drained < len(queued) || !kept) {
		drained = historyOf(r.ledger.entries()).runs()
		kept = r.rdb.ZScore(ctx, wire.LeaseKey(q), long[0]).Val() > leased
		pause(ctx, 20*time.Millisecond)
	}
	// Now there is nothing to do but to wait.
	before := r.refusals()
	const watch = 5 * time.Second
	pause(ctx, watch)
	rate := float64(r.refusals()-before) / watch.Seconds()

	r.configure("maxmemory", "0")
	r.ledger.open("go")
	r.drained(r.recovery())
	if !r.stock() {
		r.counted(len(queued)+1, 0)
	}
	return measured(drained == len(queued) && kept && rate <= 5,
		"drained %d of %d; lease kept: %t; %.1f refusals/s", drained, len(queued), kept, rate)
}

func (r *rig) configure(key, value string) {
	r.t.Helper()
	if err := r.server.Admin().ConfigSet(r.t.Context(), key, value).Err(); err != nil {
		r.t.Fatal(err)
	}
}

// refusals are the commands that Redis has refused for want of memory.
func (r *rig) refusals() int {
	r.t.Helper()
	info, err := r.rdb.Info(r.t.Context(), "errorstats").Result()
	if err != nil {
		r.t.Fatal(err)
	}
	_, text, _ := strings.Cut(info, "errorstat_OOM:count=")
	text, _, _ = strings.Cut(text, "\r")
	n, _ := strconv.Atoi(text)
	return n
}

func TestFaultF11RedisEvicts(t *testing.T) {
	t.Parallel()
	check(t, "F11", redisEvicts, withoutRedis())
}

// redisEvicts: a Redis that may drop keys is no place for jobs.
func redisEvicts(r *rig) figure {
	refused := 0
	policies := []string{"allkeys-lru", "volatile-lru"}
	for _, policy := range policies {
		server := redistest.Start(r.t, redistest.WithConfig("maxmemory-policy", policy))
		w := r.spawn(via(server.URL()))
		select {
		case <-w.ended:
		case <-time.After(patience):
		}
		if w.err != nil && w.said("maxmemory-policy noeviction") > 0 {
			refused++
		}
	}
	return measured(refused == len(policies), "%d of %d refused at the start", refused, len(policies))
}

func TestFaultF15ScriptsFlushed(t *testing.T) {
	t.Parallel()
	check(t, "F15", scriptsFlushed)
}

// scriptsFlushed: Redis forgets all scripts, ten times a second, while thousands of jobs pass.
func scriptsFlushed(r *rig) figure {
	ctx, stop := context.WithCancel(r.t.Context())
	flushes := make(chan int, 1)
	go func() {
		n := 0
		for ctx.Err() == nil {
			if r.rdb.ScriptFlush(ctx).Err() == nil {
				n++
			}
			pause(ctx, 100*time.Millisecond)
		}
		flushes <- n
	}()
	defer stop()
	w := r.worker()
	failed := 0
	const jobs = 1500
	for range jobs {
		if err := r.enqueueID(ctx, r.nextID(), work{}); err != nil {
			failed++
		}
	}
	h := r.drained(patience)
	stop()
	n := <-flushes
	told := w.said("level=ERROR") + w.said("Redis fails")
	if !r.stock() {
		r.counted(jobs, 0)
	}
	return measured(failed+told == 0 && h.runs() == jobs, "errors %d in %d flushes, %d runs of %d", failed+told, n, h.runs(), jobs)
}

func TestFaultF20LargeJobsRun(t *testing.T) {
	t.Parallel()
	check(t, "F20", largeJobs)
}

// largeJobs: what 50 running jobs of 1 MiB cost while they just run.
func largeJobs(r *rig) figure {
	r.worker(concurrency(50))
	ids := r.enqueue(50, work{Gate: "go", Pad: make([]byte, 768<<10)}) // a third more as JSON
	r.running(ids)
	const watch = 11 * time.Second // two beats of the slowest kind
	before := r.traffic()
	pause(r.t.Context(), watch)
	rate := float64(r.traffic()-before) / watch.Seconds() / 1e6
	r.ledger.open("go")
	r.drained(patience)
	return measured(rate <= 0.1, "%.3f MB/s", rate)
}

// traffic is how many bytes Redis has read and written.
func (r *rig) traffic() int {
	r.t.Helper()
	info, err := r.rdb.InfoMap(r.t.Context(), "stats").Result()
	if err != nil {
		r.t.Fatal(err)
	}
	sum := 0
	for _, key := range []string{"total_net_input_bytes", "total_net_output_bytes"} {
		n, err := strconv.Atoi(info["Stats"][key])
		if err != nil {
			r.t.Fatal(fmt.Errorf("%s: %w", key, err))
		}
		sum += n
	}
	return sum
}
