package faults

import (
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/wire"
)

func TestFaultF12IDsWithoutBody(t *testing.T) {
	t.Parallel()
	check(t, "F12", idsWithoutBody)
}

// idsWithoutBody: a real job stands behind ids of which nothing is left.
func idsWithoutBody(r *rig) figure {
	n := 1000
	if r.stock() {
		n = 20 // it takes a second for each
	}
	ghosts := make([]any, n)
	for i := range ghosts {
		ghosts[i] = fmt.Sprintf("ghost-%04d", i)
	}
	if err := r.rdb.LPush(r.t.Context(), wire.PendingKey(q), ghosts...).Err(); err != nil {
		r.t.Fatal(err)
	}
	r.enqueue(1, work{})
	at := r.ledger.now()
	w := r.worker()
	h := r.ledger.until(r.recovery(), "the job runs", func(h history) bool { return h.begun() == 1 })
	for _, e := range h.entries {
		if e.kind == entryReady {
			at = e.at
		}
	}
	took := max(h.starts[r.acknowledged()[0]][0].at.Sub(at), 0) / time.Duration(n)
	r.ledger.until(patience, "the job ends", func(h history) bool { return h.runs() == 1 })
	if r.stock() {
		leaked := len(r.rdb.Keys(r.t.Context(), wire.JobPrefix(q)+"ghost-*").Val())
		return measured(false, "%v each, keys leaked %d of %d", took.Round(time.Millisecond), leaked, n)
	}
	r.drained(patience)
	leaked := len(r.rdb.Keys(r.t.Context(), wire.JobPrefix(q)+"ghost-*").Val())
	if w.said("without_body") == 0 {
		r.t.Error("the worker does not tell what it dropped")
	}
	return measured(took <= time.Millisecond && leaked == 0, "%v each, keys leaked %d", took.Round(time.Microsecond), leaked)
}

func TestFaultF13Undecodable(t *testing.T) {
	t.Parallel()
	check(t, "F13", undecodable)
}

// undecodable: a worker dies with 21 jobs, and the message of one of them has become unreadable.
func undecodable(r *rig) figure {
	ctx := r.t.Context()
	dead := r.worker(concurrency(21))
	ids := r.enqueue(20, work{Gate: "go"})
	bad := r.enqueue(1, work{Gate: "go"})[0]
	r.running(append(ids, bad))
	r.worker(concurrency(21))
	r.acquainted()
	const rubbish = "\xff\xff\xff rubbish"
	if err := r.rdb.HSet(ctx, wire.JobKey(q, bad), "msg", rubbish).Err(); err != nil {
		r.t.Fatal(err)
	}
	at := time.Now()
	dead.kill()
	limit := 30 * time.Second
	if r.stock() {
		limit = 3 * time.Minute // some more than it takes to recover others
	}
	recovered, aside := 0, time.Duration(0)
	for time.Since(at) < limit && (recovered < len(ids) || aside == 0) {
		h := historyOf(r.ledger.entries())
		recovered = 0
		for _, id := range ids {
			if len(h.starts[id]) > 1 {
				recovered++
			}
		}
		if aside == 0 && r.rdb.ZScore(ctx, wire.UndecodableKey(q), bad).Err() == nil {
			aside = time.Since(at)
		}
		pause(ctx, 10*time.Millisecond)
	}
	r.ledger.open("go")
	if r.stock() {
		return measured(false, "%d of %d recovered in %v", recovered, len(ids), limit)
	}
	if kept := r.rdb.HGet(ctx, wire.JobKey(q, bad), "msg").Val(); kept != rubbish {
		r.t.Errorf("the body was not kept for inspection: %q", kept)
	}
	r.atRestBut(patience, bad)
	r.counted(len(ids), 0)
	return measured(recovered == len(ids) && aside > 0 && aside <= 5*time.Second,
		"set aside after %.1f s, %d of %d recovered", aside.Seconds(), recovered, len(ids))
}

func TestFaultF21ManyDead(t *testing.T) {
	t.Parallel()
	check(t, "F21", manyDead)
}

// manyDead: jobs die into an archive that holds 9,000 too old ones and nearly as many others as it may.
func manyDead(r *rig) figure {
	ctx := r.t.Context()
	const old, fresh, dying = 9000, 9500, 1500
	now := time.Now()
	for i := range old + fresh {
		id, died := fmt.Sprintf("fresh-%05d", i), now.Add(-time.Hour)
		if i < old {
			id, died = fmt.Sprintf("old-%05d", i), now.Add(-91*24*time.Hour)
		}
		r.archived(id, died)
	}
	w := r.worker(concurrency(50))
	ids := r.enqueue(dying, work{Fail: true}, maxRetry(0))
	r.ledger.until(patience, "the jobs have run", func(h history) bool { return len(h.starts) == dying })
	limit := patience
	if r.stock() {
		limit = 10 * time.Second // it does not come to rest
	}
	deadline := time.Now().Add(limit)
	broken := dying
	for broken > 0 && time.Now().Before(deadline) {
		broken = dying - r.inState("archived", ids)
		pause(ctx, 50*time.Millisecond)
	}
	if r.stock() {
		return measured(broken == 0, "%d of %d could not be archived", broken, dying)
	}
	r.atRest(patience)
	left := r.rdb.ZCard(ctx, wire.ArchivedKey(q)).Val()
	if w.said("level=ERROR") > 0 {
		r.t.Error("archiving failed")
	}
	if left >= 10000 {
		r.t.Errorf("%d dead jobs are kept, asynq's limit is 9,999", left)
	}
	r.counted(dying, dying)
	return measured(broken == 0, "broken %d, in no list 0, %d kept", broken, left)
}

// inState counts the jobs whose body says so.
func (r *rig) inState(state string, ids []string) int {
	r.t.Helper()
	pipe := r.rdb.Pipeline()
	for _, id := range ids {
		pipe.HGet(r.t.Context(), wire.JobKey(q, id), "state")
	}
	cmds, _ := pipe.Exec(r.t.Context()) // of those that are gone it says redis.Nil
	n := 0
	for _, cmd := range cmds {
		if text, ok := cmd.(*redis.StringCmd); ok && text.Val() == state {
			n++
		}
	}
	return n
}

// archived writes a dead job as asynq would have, long ago.
func (r *rig) archived(id string, at time.Time) {
	r.t.Helper()
	m := &wire.Message{ID: id, Type: "work", Queue: q, ErrorMsg: "long ago", LastFailedAt: at.Unix()}
	data, err := m.Encode()
	if err != nil {
		r.t.Fatal(err)
	}
	_, err = r.rdb.Pipelined(r.t.Context(), func(p redis.Pipeliner) error {
		p.HSet(r.t.Context(), wire.JobKey(q, id), "msg", data, "state", "archived")
		p.ZAdd(r.t.Context(), wire.ArchivedKey(q), redis.Z{Score: float64(at.Unix()), Member: id})
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}
