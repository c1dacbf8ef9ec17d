package faults

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func TestFaultF06RepliesCut(t *testing.T) {
	t.Parallel()
	check(t, "F6", repliesCut)
}

// repliesCut: of all that Redis answers, every tenth reply never arrives, at the producer's as at the worker's.
func repliesCut(r *rig) figure {
	p := newProxy(r.t, r.server.Addr(), 6)
	direct := r.rdb
	opts, err := redis.ParseURL(p.url())
	if err != nil {
		r.t.Fatal(err)
	}
	cut := redis.NewClient(opts)
	r.t.Cleanup(func() { _ = cut.Close() })
	r.use(cut, p.url())
	r.rdb = direct // what the test asserts, it reads for itself

	r.worker()
	p.percent.Store(10)
	const jobs = 500
	falseErrors := 0
	for range jobs {
		id := r.nextID()
		if err := r.enqueueID(r.t.Context(), id, work{}, maxRetry(3)); err != nil {
			falseErrors++
			r.acked[id] = time.Now() // it may be there all the same
		}
	}
	enqueued := time.Now()
	// What has not run after a while is stranded. Stock needs a second for a job when it is told so little.
	for limit := 5 * time.Second; time.Since(enqueued) < limit && len(r.unfinished()) > 0; {
		pause(r.t.Context(), 20*time.Millisecond)
	}
	stranded := len(r.unfinished())
	last := r.ledger.until(r.recovery()+30*time.Second, "all jobs run", func(history) bool { return len(r.unfinished()) == 0 })
	took := time.Since(enqueued)
	p.percent.Store(0)
	r.drained(r.recovery() + 30*time.Second)
	text := ""
	if stranded > 0 {
		text = " for up to " + took.Round(time.Second).String()
	}
	if !r.stock() {
		r.counted(jobs, 0)
	}
	r.t.Logf("%d replies cut, %d runs of %d", p.cuts.Load(), last.runs(), jobs)
	return measured(falseErrors == 0 && stranded == 0, "false errors %d of %d, stranded %d%s", falseErrors, jobs, stranded, text)
}
