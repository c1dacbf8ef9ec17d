package faults

import (
	"strings"
	"testing"
	"time"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

func TestFaultF08MasterKilled(t *testing.T) { check(t, "F8", masterKilled, withoutRedis()) }

// masterKilled: the master dies under load, the sentinels make its replica master.
func masterKilled(r *rig) figure {
	set := redistest.Sentinel(r.t)
	url := set.URL()
	if r.stock() { // it writes the same thing in another way
		hosts, _, _ := strings.Cut(strings.TrimPrefix(url, "redis-sentinel://"), "/")
		url = "redis-sentinel://" + hosts + "?master=bellhop"
	}
	r.use(set.Client(), url)
	const slots = 10
	r.worker(concurrency(slots))
	stop := r.producer(2*time.Millisecond, work{For: 20 * time.Millisecond})
	r.ledger.until(patience, "jobs run", func(h history) bool { return h.runs() > 50 })
	at := r.ledger.now()
	set.KillMaster()
	h := r.ledger.until(patience, "jobs run again", func(h history) bool { return len(h.after(at.Add(time.Second))) > 50 })
	stop()
	back := h.after(at.Add(500 * time.Millisecond))[0].at.Sub(at)
	h = r.drained(r.recovery())
	duplicates := h.runs() - len(h.ends)
	if lost := r.lost(); len(lost) > 0 {
		return measured(false, "lost %d", len(lost))
	}
	return measured(duplicates <= slots, "lost 0, duplicates %d of %d slots, back after %.1f s", duplicates, slots, back.Seconds())
}

// after are the starts since then.
func (h history) after(t time.Time) []entry {
	var starts []entry
	for _, e := range h.entries {
		if e.kind == entryStart && e.at.After(t) {
			starts = append(starts, e)
		}
	}
	return starts
}
