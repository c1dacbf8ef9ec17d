package triggers

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/common/types"

	"github.com/bellhop-dev/bellhop/job"
)

// occurrence is an event on its way through the triggers.
type occurrence struct {
	streamID string
	storedAt time.Time
	vars     *eventVars
}

// panicError is what a panic in an evaluation becomes.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string {
	return "the evaluation panicked: " + truncate(fmt.Sprint(e.value))
}

// match asks whether the rule fires on the event. false without an error is "no"; an [absentError] comes with false and
// means "no" as well. Any other error but errInterrupted is one that the same event would always meet.
func (r *rule) match(ctx context.Context, o *occurrence) (yes bool, err error) {
	defer recovered(&err)
	if r.when == nil {
		return true, nil
	}
	value, err := r.when.eval(ctx, o.vars)
	if err != nil {
		return false, at("when", err)
	}
	result, ok := value.(types.Bool)
	if !ok {
		return false, fmt.Errorf("when: gave %s, a filter must give a bool", value.Type().TypeName())
	}
	return bool(result), nil
}

// request makes the job of a match. Its error is errInterrupted, or one that the same event would always meet.
func (r *rule) request(ctx context.Context, s *Set, o *occurrence) (request job.Request, size int, err error) {
	defer recovered(&err)
	task, known := s.tasks.Task(r.Run)
	if !known {
		return job.Request{}, 0, fmt.Errorf("run: no task %q is known: start a worker that serves it, then replay", r.Run)
	}
	payload, err := r.payload(ctx, s, o)
	if err != nil {
		return job.Request{}, 0, err
	}
	e := o.vars.event
	options := append(slices.Clip(r.options), job.ForEvent(job.Event{
		ID: e.ID, Source: e.Source, Type: e.Type, Trigger: r.Name, Group: s.cfg.group(), StreamID: o.streamID, StoredAt: o.storedAt,
	}))
	request, err = task.Request(payload, options...)
	return request, len(payload), err
}

func (r *rule) payload(ctx context.Context, s *Set, o *occurrence) ([]byte, error) {
	if r.with == nil {
		return o.vars.payload(s.cfg.MaxPayloadBytes)
	}
	out := &output{limit: s.cfg.MaxPayloadBytes}
	if err := r.with.write(ctx, o.vars, out); err != nil {
		return nil, err
	}
	return out.buf, nil
}

func recovered(err *error) {
	if p := recover(); p != nil {
		*err = &panicError{p, debug.Stack()}
	}
}

func isAbsent(err error) bool { return errors.As(err, new(*absentError)) }

// storedAt reads the milliseconds of a stream id.
func storedAt(streamID string) (time.Time, error) {
	text, _, _ := strings.Cut(streamID, "-")
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("stream id %q has no time", truncate(streamID))
	}
	return time.UnixMilli(ms), nil
}
