package triggers

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/internal/suggest"
	"github.com/bellhop-dev/bellhop/job"
)

// Replayed is what a replay came to.
type Replayed struct {
	// Matched tells whether the trigger, as it is now, matches the event.
	Matched bool
	// JobID is the job that the match led to, now or, if Duplicate, before.
	JobID     string
	Duplicate bool
}

// Replay runs the trigger of a dead match, as it is now, on the kept event, and removes the dead match once the job is in
// Redis, or if the trigger doesn't match any more. When it fails again, the dead match stays. Two replays at once enqueue
// one job. The error is events.ErrNotFound if there is no such dead match.
func (r *Runner) Replay(ctx context.Context, id string) (Replayed, error) {
	m, err := r.Dead.GetDeadMatch(ctx, id)
	if err != nil {
		return Replayed{}, fmt.Errorf("replay: %w", err)
	}
	replayed, err := r.again(ctx, m)
	if err != nil {
		return Replayed{}, fmt.Errorf("replay dead match %s: trigger %q: %w", id, m.Trigger, err)
	}
	if err := r.Dead.RemoveDeadMatch(ctx, id); err != nil && !errors.Is(err, events.ErrNotFound) {
		return replayed, fmt.Errorf("replay dead match %s: it is done, but stays listed: %w", id, err)
	}
	return replayed, nil
}

func (r *Runner) again(ctx context.Context, m events.DeadMatch) (Replayed, error) {
	set := r.set.Load()
	if m.Group != set.cfg.group() {
		return Replayed{}, fmt.Errorf("it belongs to the group %q, these triggers to %q: replay it with that group's configuration",
			cmp.Or(m.Group, DefaultGroup), cmp.Or(set.cfg.group(), DefaultGroup))
	}
	rule := set.byName[m.Trigger]
	if rule == nil {
		names := make([]string, len(set.rules))
		for i, known := range set.rules {
			names[i] = known.Name
		}
		return Replayed{}, fmt.Errorf("there is no such trigger any more%s: bring it back, or remove the dead match", suggest.DidYouMean(m.Trigger, names))
	}
	stored, err := storedAt(m.StreamID)
	if err != nil {
		return Replayed{}, err
	}
	o := &occurrence{streamID: m.StreamID, storedAt: stored, vars: newEventVars(m.Event)}
	matched, err := matchAgain(ctx, rule, o)
	if err != nil || !matched {
		return Replayed{}, err
	}
	request, _, err := rule.request(ctx, set, o)
	if err != nil {
		return Replayed{}, err
	}
	result := r.Jobs.EnqueueMany(ctx, []job.Request{request})[0]
	duplicate := new(job.DuplicateError)
	switch {
	case result.Err == nil:
		r.counters.of(rule.Name).jobs.Add(1)
		return Replayed{Matched: true, JobID: result.Info.ID}, nil
	case errors.As(result.Err, &duplicate):
		r.counters.of(rule.Name).duplicates.Add(1)
		return Replayed{Matched: true, JobID: duplicate.ID, Duplicate: true}, nil
	}
	return Replayed{}, result.Err
}

func matchAgain(ctx context.Context, r *rule, o *occurrence) (bool, error) {
	if !r.pattern.Match(o.vars.event.Type) {
		return false, nil
	}
	matched, err := r.match(ctx, o)
	if isAbsent(err) {
		return false, nil
	}
	return matched, err
}
