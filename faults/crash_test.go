package faults

import (
	"strings"
	"testing"
	"time"

	"github.com/bellhop-dev/bellhop/internal/wire"
)

func TestFaultF01WorkerKilled(t *testing.T) {
	t.Parallel()
	check(t, "F1", killed)
}

// killed: how long after kill -9 do the last of the dead worker's jobs run again?
func killed(r *rig) figure {
	dead := r.worker()
	ids := r.enqueue(10, work{Gate: "go"})
	r.running(ids)
	r.worker()
	r.acquainted()

	at := r.ledger.now()
	dead.kill()
	took := r.again(ids, at)
	for _, id := range ids {
		if m, _ := r.job(id); m == nil || !r.stock() && m.Retried != 0 {
			r.t.Errorf("job %s was charged for the crash: %+v", id, m)
		}
	}
	r.ledger.open("go")
	r.drained(patience)
	if !r.stock() {
		r.counted(len(ids), 0)
	}
	return measured(took <= 2*time.Second, "%.1f s", took.Seconds())
}

// acquainted waits until the workers have looked at each other a few times.
func (r *rig) acquainted() {
	r.t.Helper()
	if r.stock() {
		return
	}
	looks := func() int { return r.calls("pubsub|numsub") }
	first := looks()
	eventually(r.t, patience, "the workers look at each other", func() bool { return looks() >= first+8 })
}

// again waits until all the jobs were started a second time, and returns how long after at that was.
func (r *rig) again(ids []string, at time.Time) time.Duration {
	r.t.Helper()
	h := r.ledger.until(r.recovery(), "the jobs run again", func(h history) bool {
		for _, id := range ids {
			if len(h.starts[id]) < 2 {
				return false
			}
		}
		return true
	})
	var last time.Time
	for _, id := range ids {
		if second := h.starts[id][1].at; second.After(last) {
			last = second
		}
	}
	return last.Sub(at)
}

func TestFaultF02WorkerFrozen(t *testing.T) {
	t.Parallel()
	check(t, "F2", frozen)
}

// frozen: a worker that stands still loses its jobs; what it writes once it is woken changes nothing.
func frozen(r *rig) figure {
	zombie := r.worker()
	ids := r.enqueue(10, work{Gate: "go", Stubborn: true})
	r.running(ids)
	r.worker()
	r.acquainted()

	at := r.ledger.now()
	zombie.freeze()
	took := r.again(ids, at)
	zombie.thaw()
	r.ledger.open("go") // both go on, and end about together
	r.ledger.until(patience, "the zombie's handlers end", func(h history) bool { return h.runs() == 2*len(ids) })
	r.drained(patience)
	// Time enough for a write that should not be.
	processed := 0
	eventually(r.t, patience, "the zombie has heard that its jobs are not its own", func() bool {
		processed, _ = r.rdb.Get(r.t.Context(), wire.ProcessedTotalKey(q)).Int()
		return r.stock() || zombie.said("the end of an attempt was refused") == len(ids)
	})
	if !r.stock() {
		r.counted(len(ids), 0)
	}
	return measured(took <= 10*time.Second && processed == len(ids), "%.1f s, zombie's writes %d", took.Seconds(), processed-len(ids))
}

func TestFaultF03NoRetryLeft(t *testing.T) {
	t.Parallel()
	check(t, "F3", noRetryLeft)
}

// noRetryLeft: jobs that may not be retried survive a crash.
func noRetryLeft(r *rig) figure {
	dead := r.worker(concurrency(12))
	ids := r.enqueue(12, work{Gate: "go"}, maxRetry(0))
	r.running(ids)
	dead.kill()
	r.worker(concurrency(12))
	archived, spent := 0, 0
	eventually(r.t, r.recovery(), "the jobs run again or are archived", func() bool {
		archived = int(r.rdb.ZCard(r.t.Context(), wire.ArchivedKey(q)).Val())
		h := historyOf(r.ledger.entries())
		live := 0
		for _, id := range ids {
			if n := len(h.starts[id]); n > 0 && h.starts[id][n-1].who != dead.role.Name {
				live++
			}
		}
		return live+archived == len(ids)
	})
	for _, id := range ids {
		if m, _ := r.job(id); m != nil {
			spent += m.Retried
		}
	}
	r.ledger.open("go")
	if !r.stock() {
		r.drained(patience)
		r.counted(len(ids), 0)
	}
	return measured(archived+spent == 0, "archived %d of %d, retries spent %d", archived, len(ids), spent)
}

func TestFaultF23KilledInBatches(t *testing.T) {
	t.Parallel()
	check(t, "F23", killedInBatches)
}

// killedInBatches: a worker that is killed between the end of handlers and the word of it to Redis, over and over.
func killedInBatches(r *rig) figure {
	const (
		jobs  = 4000
		slots = 100
		kills = 3
	)
	feeding := make(chan struct{})
	go func() {
		defer close(feeding)
		for range jobs {
			if err := r.enqueueID(r.t.Context(), r.nextID(), work{}, maxRetry(0)); err != nil {
				r.t.Error(err)
				return
			}
		}
	}()
	r.worker(concurrency(slots))
	victim := r.worker(concurrency(slots))
	for i := range kills {
		begun := 0
		r.ledger.until(patience, "the worker is in the midst", func(h history) bool {
			begun = 0
			for _, e := range h.entries {
				if e.kind == entryStart && e.who == victim.role.Name {
					begun++
				}
			}
			return begun > 50
		})
		victim.kill()
		if i+1 < kills {
			victim = r.worker(concurrency(slots))
		}
	}
	<-feeding
	archived := 0
	h := r.ledger.until(r.recovery(), "every job is executed or archived", func(h history) bool {
		archived = int(r.rdb.ZCard(r.t.Context(), wire.ArchivedKey(q)).Val())
		return len(h.ends)+archived >= jobs
	})
	r.atRest(patience)
	if !r.stock() {
		r.counted(jobs, 0)
	}
	duplicates := h.runs() - len(h.ends)
	return measured(archived == 0 && duplicates <= kills*slots, "%d kills: duplicates %d, archived %d", kills, duplicates, archived)
}

func TestFaultF04JobKillsItsProcess(t *testing.T) {
	t.Parallel()
	check(t, "F4", poisoned)
}

// poisoned: one job kills whatever process runs it, and nine are caught in it. Both workers are started again at once.
func poisoned(r *rig) figure {
	innocents := r.enqueue(4, work{For: 300 * time.Millisecond}, maxRetry(25))
	poison := r.nextID()
	if err := r.enqueueID(r.t.Context(), poison, work{Exit: true}, maxRetry(25)); err != nil {
		r.t.Fatal(err)
	}
	innocents = append(innocents, r.enqueue(5, work{For: 300 * time.Millisecond}, maxRetry(25))...)

	a, b := r.supervised(), r.supervised()
	state := ""
	eventually(r.t, patience, "the poison is quarantined and the innocents are done", func() bool {
		_, h := r.job(poison)
		state = h["state"] + " " + h["bellhop_end"]
		done := historyOf(r.ledger.entries())
		for _, id := range innocents {
			if len(done.ends[id]) == 0 {
				return false
			}
		}
		// Their ends must be written too: nobody is left to do it once both are killed.
		left := r.rdb.LLen(r.t.Context(), wire.PendingKey(q)).Val() + r.rdb.LLen(r.t.Context(), wire.ActiveKey(q)).Val()
		return h["state"] == "archived" && left == 0
	})
	crashes := a.retire() + b.retire()
	message, _ := r.job(poison)
	if message == nil || state != "archived quarantined" || !strings.Contains(message.ErrorMsg, "process died") {
		r.t.Errorf("the poison's end is %q, its message %+v", state, message)
	}
	h := historyOf(r.ledger.entries())
	if len(h.starts[poison]) != crashes {
		r.t.Errorf("the poison was started %d times and the processes died %d times", len(h.starts[poison]), crashes)
	}
	r.atRestBut(patience, poison)
	r.counted(len(innocents)+1, 1) // nobody was charged
	return measured(crashes <= 3, "%d crashes, quarantined; innocents all done, uncharged", crashes)
}
