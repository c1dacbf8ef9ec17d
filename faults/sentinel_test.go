package faults

import (
	"strings"
	"testing"
	"time"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/job"
)

func TestFaultF08MasterKilled(t *testing.T) {
	t.Parallel()
	check(t, "F8", masterKilled, withoutRedis())
}

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

func TestFaultF09Split(t *testing.T) {
	t.Parallel()
	check(t, "F9", split, withoutRedis())
}

// split: for 10 s nobody but the clients of the old master reaches it. The sentinels make its replica master; what the old one
// acknowledges meanwhile is gone once it joins again. The durable mode acknowledges nothing then. The sentinels themselves wait for 8 s
// until they make a master that comes back a replica; its clients are told then.
func split(r *rig) figure {
	ctx := r.t.Context()
	set := redistest.Sentinel(r.t, redistest.WithUser("app", "secret", "~*", "&*", "+@all"))
	old := set.Master.Client()
	r.use(set.Client(), set.URL())
	plain, durable := job.NewClient(old), job.NewClient(old, job.Durable(1, 200*time.Millisecond))
	var acked, ackedPlain []string
	store := func() {
		id := r.nextID()
		if _, err := workTask.Enqueue(ctx, durable, work{}, job.ID(id)); err == nil {
			acked = append(acked, id)
		}
		id = r.nextID()
		if _, err := workTask.Enqueue(ctx, plain, work{}, job.ID(id)); err == nil {
			ackedPlain = append(ackedPlain, id)
		}
		pause(ctx, 5*time.Millisecond)
	}
	for range 100 {
		store()
	}
	before := len(acked)

	// The sentinels and the replica are the default user: shut it out, and end its connections.
	must(r.t, old.Do(ctx, "ACL", "SETUSER", "default", "off").Err())
	must(r.t, old.Do(ctx, "CLIENT", "KILL", "USER", "default").Err())
	for began := time.Now(); time.Since(began) < 10*time.Second; {
		store()
	}
	must(r.t, old.Do(ctx, "ACL", "SETUSER", "default", "on").Err())
	healed := time.Now()
	rejoined := func() bool { return strings.Contains(old.Info(ctx, "replication").Val(), "master_link_status:up") }
	eventually(r.t, patience, "the old master is a replica", rejoined)
	back := time.Since(healed)

	// What is left is run; what is neither run nor left is lost.
	r.worker()
	master := set.Replica.Client()
	eventually(r.t, patience, "what is left has run", func() bool {
		return master.Exists(ctx, wire.PendingKey(q), wire.ActiveKey(q)).Val() == 0
	})
	h := historyOf(r.ledger.entries())
	missing := func(ids []string) int {
		n := 0
		for _, id := range ids {
			if len(h.ends[id]) == 0 {
				n++
			}
		}
		return n
	}
	lost, lostPlain := missing(acked), missing(ackedPlain)
	if before < 90 || lostPlain == 0 {
		r.t.Errorf("the split shows nothing: %d were acknowledged before it, %d lost without the durable mode", before, lostPlain)
	}
	got := measured(lost == 0 && back <= 15*time.Second, "durable: lost %d of %d (else %d of %d); back %.1f s",
		lost, len(acked), lostPlain, len(ackedPlain), back.Seconds())
	if back > 5*time.Second {
		got = got.missing("Sentinel waits 8 s until it demotes a master that comes back")
	}
	return got
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
