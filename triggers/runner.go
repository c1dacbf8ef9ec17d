package triggers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/job"
)

// Jobs is where matches become jobs: [job.Client].
type Jobs interface {
	EnqueueMany(ctx context.Context, requests []job.Request) []job.Result
}

// DeadMatches keeps what failed: [events.Client].
type DeadMatches interface {
	AddDeadMatch(ctx context.Context, matches ...events.DeadMatch) error
	GetDeadMatch(ctx context.Context, id string) (events.DeadMatch, error)
	RemoveDeadMatch(ctx context.Context, id string) error
}

// FiredMarkers remembers which trigger has fired for which event: [job.Client].
type FiredMarkers interface {
	ForgetFired(ctx context.Context, before time.Time) error
}

// Deps is what a runner works with. Logger may be nil: slog.Default().
type Deps struct {
	Jobs   Jobs
	Dead   DeadMatches
	Fired  FiredMarkers
	Logger *slog.Logger
}

// Runner runs a set of triggers over events. It is safe for concurrent use.
type Runner struct {
	Deps
	set      atomic.Pointer[Set]
	counters counters
}

// NewRunner returns a runner of the set.
func NewRunner(set *Set, deps Deps) *Runner {
	r := &Runner{Deps: deps}
	if r.Logger == nil {
		r.Logger = slog.Default()
	}
	r.set.Store(set)
	return r
}

// Swap replaces the set: batches that come from now on see the new one.
func (r *Runner) Swap(set *Set) { r.set.Store(set) }

// Set returns the set in use.
func (r *Runner) Set() *Set { return r.set.Load() }

// Stats returns the counters.
func (r *Runner) Stats() Stats { return r.counters.stats() }

// Handle is an [events.Handler]: it fires every trigger that matches an event of the batch, once per event and trigger,
// however often the event comes. The answer for an event is nil when all its jobs are in Redis and all its dead matches
// are kept; an error, when Redis took one of them not, leaves the event pending.
func (r *Runner) Handle(ctx context.Context, batch []events.Delivery) []error {
	b := &batchRun{Runner: r, set: r.set.Load(), outcomes: make([]error, len(batch)), batch: batch}
	for i := range batch {
		b.match(ctx, i)
		if b.bytes > maxBatchBytes {
			b.enqueue(ctx)
		}
	}
	b.enqueue(ctx)
	b.bury(ctx)
	return b.outcomes
}

// maxBatchBytes of payloads are made before they are handed to Redis: a batch of large events must not hold them all twice.
const maxBatchBytes = 16 << 20

// maxBurial is how many dead matches go to Redis in one call; each holds its event.
const maxBurial = 16

// batchRun is one call of Handle.
type batchRun struct {
	*Runner
	set      *Set
	batch    []events.Delivery
	outcomes []error

	requests []job.Request
	fired    []firing // requests[n] is of fired[n]
	bytes    int
	dead     []events.DeadMatch
	deadOf   []int // dead[n] is of batch[deadOf[n]]
}

// firing is a match: of which event, of which rule.
type firing struct {
	index int
	rule  *rule
}

// match collects what the event leads to.
func (b *batchRun) match(ctx context.Context, index int) {
	d := b.batch[index]
	stored, err := storedAt(d.StreamID)
	if err != nil {
		b.outcomes[index] = err
		return
	}
	b.counters.events.Add(1)
	o := &occurrence{streamID: d.StreamID, storedAt: stored, vars: newEventVars(d.Event)}
	only := d.Event.ReplayedFor()
	b.set.matching(d.Event.Type, func(r *rule) {
		if b.outcomes[index] == nil && (only == "" || only == b.set.fullName(r)) {
			b.outcomes[index] = b.fire(ctx, index, r, o)
		}
	})
}

// fire evaluates one rule. Its error is only ever errInterrupted: all that is wrong with the rule ends as a dead match.
func (b *batchRun) fire(ctx context.Context, index int, r *rule, o *occurrence) error {
	count := b.counters.of(r.Name)
	yes, err := r.match(ctx, o)
	switch {
	case errors.Is(err, errInterrupted):
		return err
	case isAbsent(err):
		count.absent.Add(1)
		return nil
	case err != nil:
		b.die(index, r, err)
		return nil
	case !yes:
		return nil
	}
	count.matches.Add(1)
	request, size, err := r.request(ctx, b.set, o)
	switch {
	case errors.Is(err, errInterrupted):
		return err
	case err != nil:
		b.die(index, r, err)
		return nil
	}
	b.requests = append(b.requests, request)
	b.fired = append(b.fired, firing{index, r})
	b.bytes += size
	return nil
}

func (b *batchRun) die(index int, r *rule, cause error) {
	d := b.batch[index]
	log := b.Logger.With("trigger", r.Name, "stream_id", d.StreamID, "event_id", d.Event.ID)
	if p := new(panicError); errors.As(cause, &p) {
		log = log.With("stack", string(p.stack))
	}
	log.Warn("triggers: trigger failed on an event, a dead match is kept; mend the trigger, then replay it", "err", cause)
	b.dead = append(b.dead, events.DeadMatch{
		StreamID: d.StreamID, Trigger: r.Name, Group: b.set.cfg.group(), Error: reason(cause), Event: d.Event,
	})
	b.deadOf = append(b.deadOf, index)
}

// maxReason bounds what a dead match says.
const maxReason = 1000

func reason(err error) string { return cut(err.Error(), maxReason) }

// enqueue stores the jobs collected so far. A duplicate is a success: the job was stored when the event came before.
func (b *batchRun) enqueue(ctx context.Context) {
	if len(b.requests) == 0 {
		return
	}
	for n, result := range b.Jobs.EnqueueMany(ctx, b.requests) {
		f := b.fired[n]
		count := b.counters.of(f.rule.Name)
		switch {
		case result.Err == nil:
			count.jobs.Add(1)
		case errors.Is(result.Err, job.ErrDuplicate):
			count.duplicates.Add(1)
		default:
			b.fail(f.index, fmt.Errorf("trigger %q: %w", f.rule.Name, result.Err))
		}
	}
	b.requests, b.fired, b.bytes = nil, nil, 0
}

// bury keeps the dead matches. An event whose dead match can't be kept stays pending: else the match would be lost.
func (b *batchRun) bury(ctx context.Context) {
	n := 0
	for some := range slices.Chunk(b.dead, maxBurial) {
		err := b.Dead.AddDeadMatch(ctx, some...)
		for _, m := range some {
			if err != nil {
				b.fail(b.deadOf[n], fmt.Errorf("trigger %q: %w", m.Trigger, err))
			} else {
				b.counters.of(m.Trigger).dead.Add(1)
			}
			n++
		}
	}
}

func (b *batchRun) fail(index int, err error) {
	b.outcomes[index] = errors.Join(b.outcomes[index], err)
}

// OnTrim forgets which triggers have fired for events that left the stream: they can't come again. It fits
// [events.ConsumerOptions].
func (r *Runner) OnTrim(ctx context.Context, firstID string) {
	before, err := storedAt(firstID)
	if err == nil && before.UnixMilli() > 0 {
		err = r.Fired.ForgetFired(ctx, before)
	}
	if err != nil && ctx.Err() == nil {
		r.Logger.Warn("triggers: fired markers of old events stay for now; the next trim tries again", "err", err)
	}
}
