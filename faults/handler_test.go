package faults

import (
	"testing"
	"time"
)

func TestFaultF17HandlerIgnoresItsContext(t *testing.T) {
	t.Parallel()
	check(t, "F17", stubborn)
}

// stubborn: the first handler goes on though its time is used up, and thirteen jobs like it wait behind it.
func stubborn(r *rig) figure {
	w := r.worker(concurrency(1))
	ids := r.enqueue(14, work{Gate: "go", Stubborn: true}, timeout(time.Second), maxRetry(0))
	r.running(ids[:1])
	if r.stock() {
		pause(r.t.Context(), 20*time.Second) // it frees the slot each second
	} else {
		eventually(r.t, patience, "the stuck handler is shown", func() bool { return w.said("ignores that its time is used up") > 0 })
		pause(r.t.Context(), 3*time.Second) // in which others would start
	}
	most := historyOf(r.ledger.entries()).besides()
	r.ledger.open("go")
	shown := w.said("ignores that its time is used up") == 1 && w.said("hand).toil") > 0
	if !r.stock() {
		r.ledger.until(patience, "all jobs run", func(h history) bool { return h.runs() == len(ids) })
		r.atRestBut(patience, ids[0])
		r.counted(len(ids), 1)
		if m, h := r.job(ids[0]); m == nil || h["state"] != "archived" {
			r.t.Errorf("the late job is not dead: %+v, %v", m, h)
		}
	}
	return measured(most == 1 && shown, "%d at once, shown with its stack: %t", most, shown)
}
