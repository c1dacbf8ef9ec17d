package faults

import (
	"testing"
	"time"
)

func TestFaultF22Terminated(t *testing.T) {
	t.Parallel()
	check(t, "F22", terminated)
}

// terminated: SIGTERM idle, in the midst of short jobs, and with a job that does not end in time.
func terminated(r *rig) figure {
	idle := r.worker().stop(patience)

	const within = 3 * time.Second
	busy := r.worker(grace(within))
	long := r.enqueue(2, work{Gate: "go"}, maxRetry(0)) // does not end in time
	r.enqueue(300, work{For: 20 * time.Millisecond}, maxRetry(0))
	r.ledger.until(patience, "the worker is in the midst", func(h history) bool { return h.runs() > 50 })
	loaded := busy.stop(patience)

	handedBack := 0
	for _, id := range long {
		if m, _ := r.job(id); m != nil && m.Retried == 0 {
			handedBack++
		}
	}
	r.ledger.open("go")
	r.worker()
	h := r.drained(patience)
	again := h.runs() - len(r.acknowledged())
	if !r.stock() {
		r.counted(len(r.acknowledged()), 0)
	}
	ok := idle <= time.Second && loaded <= within+time.Second && handedBack == len(long) && again == 0
	got := measured(ok, "idle %.2f s, loaded %.1f s (grace 3 s), runs twice %d", idle.Seconds(), loaded.Seconds(), again)
	if loaded.Round(100*time.Millisecond) > within {
		got = got.missing("once the grace is over, handlers may still return for 0.3 s")
	}
	return got
}
