package faults

import (
	"strings"
	"testing"
	"time"

	"github.com/bellhop-dev/bellhop/internal/redisconn"
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

// split: for 10 s the clients are alone with the old master. The sentinels make its replica master; what the old one acknowledges
// meanwhile is gone once it joins again. The durable mode acknowledges nothing then. Healed, the old master goes on as one for the 8 s
// that Sentinel takes to demote it: a client is back once a write of its own counts. There are two replicas, or the durable mode would
// have none to wait for until then.
func split(r *rig) figure {
	ctx := r.t.Context()
	set := redistest.SentinelOf(r.t, 2, redistest.WithUser("app", "secret", "~*", "&*", "+@all"))
	ways := make([]*proxy, len(set.Sentinels))
	addrs := make([]string, len(ways))
	for i, s := range set.Sentinels {
		ways[i] = newProxy(r.t, s.Addr(), 0)
		addrs[i] = ways[i].listener.Addr().String()
	}
	client, err := redisconn.Open(redisconn.Config{URL: "redis-sentinel://app:secret@" + strings.Join(addrs, ",") + "/bellhop/0"})
	must(r.t, err)
	r.t.Cleanup(func() { _ = client.Close() })
	old := set.Master.Client()
	r.use(set.Client(), set.URL())
	plain, durable := job.NewClient(client), job.NewClient(client, job.Durable(1, 200*time.Millisecond))
	var acked, ackedPlain []string
	store := func() (confirmed bool) {
		id := r.nextID()
		_, err := workTask.Enqueue(ctx, durable, work{}, job.ID(id))
		if confirmed = err == nil; confirmed {
			acked = append(acked, id)
		}
		id = r.nextID()
		if _, err := workTask.Enqueue(ctx, plain, work{}, job.ID(id)); err == nil {
			ackedPlain = append(ackedPlain, id)
		}
		pause(ctx, 5*time.Millisecond)
		return confirmed
	}
	for range 100 {
		store()
	}
	before := len(acked)

	// The sentinels and the replica are the default user: shut it out, and end its connections.
	must(r.t, old.Do(ctx, "ACL", "SETUSER", "default", "off").Err())
	must(r.t, old.Do(ctx, "CLIENT", "KILL", "USER", "default").Err())
	for _, w := range ways {
		w.split()
	}
	for began := time.Now(); time.Since(began) < 10*time.Second; {
		store()
	}
	must(r.t, old.Do(ctx, "ACL", "SETUSER", "default", "on").Err())
	for _, w := range ways {
		w.heal()
	}
	healed := time.Now()
	eventually(r.t, patience, "a write is confirmed again", store)
	back := time.Since(healed)
	rejoined := func() bool { return strings.Contains(old.Info(ctx, "replication").Val(), "master_link_status:up") }
	eventually(r.t, patience, "the old master is a replica", rejoined)

	// What is left is run; what is neither run nor left is lost.
	r.worker()
	master := set.Client()
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
	return measured(lost == 0 && back <= 5*time.Second, "durable: lost %d of %d (else %d of %d); back %.1f s",
		lost, len(acked), lostPlain, len(ackedPlain), back.Seconds())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
