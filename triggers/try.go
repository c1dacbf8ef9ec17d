package triggers

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/job"
)

// Trial is what a trigger makes of an event, found out without making it.
type Trial struct {
	// Matched tells whether the trigger fires on the event.
	Matched bool `json:"matched"`
	// Reason says why not; or that it would fire, but is disabled.
	Reason string `json:"reason,omitempty"`
	// Filter is what the filter gave: true or false. It is absent without a filter, or if it failed.
	Filter *bool `json:"filter,omitempty"`
	// Payload is what the mapping gave, also if the task doesn't take it.
	Payload json.RawMessage `json:"payload,omitempty"`
	// Error is why the match fails: it would leave a dead match.
	Error string `json:"error,omitempty"`
	// Job is what would be enqueued.
	Job *TrialJob `json:"job,omitempty"`
}

// TrialJob is the job that a match would make.
type TrialJob struct {
	// ID is the job's if the event is on the stream.
	ID        string        `json:"id,omitempty"`
	Task      string        `json:"task"`
	Queue     string        `json:"queue"`
	In        time.Duration `json:"in,omitempty"`
	MaxRetry  int           `json:"max_retry"`
	Timeout   time.Duration `json:"timeout"`
	Retention time.Duration `json:"retention,omitempty"`
	Unique    time.Duration `json:"unique,omitempty"`
}

// MarshalJSON writes durations as in a trigger.
func (j TrialJob) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		ID        string `json:"id,omitempty"`
		Task      string `json:"task"`
		Queue     string `json:"queue"`
		In        string `json:"in,omitempty"`
		MaxRetry  int    `json:"max_retry"`
		Timeout   string `json:"timeout,omitempty"`
		Retention string `json:"retention,omitempty"`
		Unique    string `json:"unique,omitempty"`
	}{
		j.ID, j.Task, j.Queue, durationText(j.In), j.MaxRetry,
		durationText(j.Timeout), durationText(j.Retention), durationText(j.Unique),
	})
}

// tryWithin bounds all evaluations of a trial together.
const tryWithin = 3 * time.Second

// Try tells what the trigger would make of the event; nothing is enqueued. streamID is the event's place on the stream, "" for
// one that isn't there. All limits on expressions hold. The error joins a [Fault] for everything that is wrong with the trigger.
func (s *Store) Try(ctx context.Context, t Trigger, streamID string, e *events.Event) (Trial, error) {
	set, err := s.compiler.compileSet([]Trigger{t}, s.tasks)
	if err != nil {
		return Trial{}, err
	}
	return set.Try(ctx, t.Name, streamID, e)
}

// Try tells what one of the set's triggers would make of the event, see [Store.Try]; [ErrNotFound] if it has none of that name.
func (s *Set) Try(ctx context.Context, name, streamID string, e *events.Event) (Trial, error) {
	r := s.byName[name]
	if r == nil {
		return Trial{}, fmt.Errorf("%w: %q", ErrNotFound, name)
	}
	if err := e.Validate(); err != nil {
		return Trial{}, fmt.Errorf("try trigger %q: %w", name, err)
	}
	o := &occurrence{streamID: streamID, storedAt: time.Now(), vars: newEventVars(e)}
	if streamID == "" {
		o.streamID = fmt.Sprintf("%d-0", o.storedAt.UnixMilli())
	} else if at, err := storedAt(streamID); err != nil {
		return Trial{}, fmt.Errorf("try trigger %q: %w", name, err)
	} else {
		o.storedAt = at
	}
	bounded, cancel := context.WithTimeout(ctx, tryWithin)
	defer cancel()
	trial, err := r.try(bounded, s, o)
	if errors.Is(err, errInterrupted) {
		if ctx.Err() != nil {
			return Trial{}, err
		}
		trial, err = Trial{Error: fmt.Sprintf("took longer than %v altogether: simplify the expressions", tryWithin)}, nil
	}
	if streamID == "" && trial.Job != nil {
		trial.Job.ID = ""
	}
	return trial, err
}

// try goes the way of an event. Its error is errInterrupted.
func (r *rule) try(ctx context.Context, s *Set, o *occurrence) (Trial, error) {
	e := o.vars.event
	if !r.pattern.Match(e.Type) {
		return Trial{Reason: fmt.Sprintf("on: the event's type %q doesn't fit %q", e.Type, r.On)}, nil
	}
	trial := Trial{}
	yes, err := r.match(ctx, o)
	switch {
	case errors.Is(err, errInterrupted):
		return trial, err
	case isAbsent(err):
		trial.Reason = cut(err.Error(), maxReason)
		return trial, nil
	case err != nil:
		trial.Error = cut(err.Error(), maxReason)
		return trial, nil
	}
	if r.when != nil {
		trial.Filter = &yes
	}
	if !yes {
		trial.Reason = "when: gave false"
		return trial, nil
	}
	trial.Matched = true
	if r.Disabled || r.off {
		trial.Reason = "the trigger is disabled: it would match, but doesn't fire"
	}
	if trial.Payload, err = r.tryPayload(ctx, s, o); err == nil {
		trial.Job, err = r.tryRequest(ctx, s, o)
	}
	switch {
	case errors.Is(err, errInterrupted):
		return trial, err
	case err != nil:
		trial.Error = cut(err.Error(), maxReason)
	}
	return trial, nil
}

func (r *rule) tryPayload(ctx context.Context, s *Set, o *occurrence) (payload []byte, err error) {
	defer recovered(&err)
	return r.payload(ctx, s, o)
}

func (r *rule) tryRequest(ctx context.Context, s *Set, o *occurrence) (*TrialJob, error) {
	request, _, err := r.request(ctx, s, o)
	if err != nil {
		return nil, err
	}
	task, _ := s.tasks.Task(r.Run)
	d := task.Defaults
	if d == (job.Defaults{}) {
		d = job.Named(r.Run).Defaults
	}
	j := &TrialJob{
		ID: request.ID(), Task: r.Run, Queue: cmp.Or(r.Queue, d.Queue, job.DefaultQueue), In: r.In, MaxRetry: d.MaxRetry,
		Timeout:   cmp.Or(r.Timeout, d.Timeout, job.DefaultTimeout),
		Retention: cmp.Or(r.Retention, d.Retention), Unique: cmp.Or(r.Unique, d.Unique),
	}
	if r.MaxRetry != nil {
		j.MaxRetry = *r.MaxRetry
	}
	return j, nil
}
