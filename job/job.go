package job

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Job is what a handler may know of the job that it runs.
type Job struct {
	ID    string
	Task  string
	Queue string

	// Payload is the task's payload as stored. Handlers of typed tasks get it decoded.
	Payload []byte

	// Headers is the metadata that the job was enqueued with. It must not be changed.
	Headers map[string]string

	// Attempt counts from 1. A snooze does not raise it.
	Attempt int

	// MaxRetry is how many attempts may follow the first one.
	MaxRetry int

	// Event is the event that led to this job, nil if none did.
	Event *Event

	result []byte
}

// LastAttempt tells that a failure of this attempt is final.
func (j *Job) LastAttempt() bool { return j.Attempt > j.MaxRetry }

// MaxResultBytes bounds what SetResult keeps.
const MaxResultBytes = 1 << 20

// SetResult keeps v as the job's result, as JSON; []byte and json.RawMessage are kept as they are. It is stored with the end of the
// attempt and lives as long as the job: give the task a Retention.
func (j *Job) SetResult(v any) error {
	data, err := encodeResult(v)
	if err != nil {
		return fmt.Errorf("encode result of job %s: %w", j.ID, err)
	}
	if len(data) > MaxResultBytes {
		return fmt.Errorf("result of job %s has %d bytes, the most is %d: store it elsewhere and keep a reference", j.ID, len(data), MaxResultBytes)
	}
	j.result = data
	return nil
}

func encodeResult(v any) ([]byte, error) {
	switch v := v.(type) {
	case []byte:
		return v, nil
	case json.RawMessage:
		return v, nil
	}
	return json.Marshal(v)
}

// Result is what SetResult kept, nil if nothing.
func (j *Job) Result() []byte { return j.result }

type contextKey struct{}

// NewContext returns a context that carries the job, for FromContext.
func NewContext(ctx context.Context, j *Job) context.Context {
	return context.WithValue(ctx, contextKey{}, j)
}

// FromContext returns the job that a handler runs; false outside of handlers.
func FromContext(ctx context.Context) (*Job, bool) {
	j, ok := ctx.Value(contextKey{}).(*Job)
	return j, ok
}

// Event names the event and the trigger that led to a job.
type Event struct {
	ID      string
	Source  string
	Type    string
	Trigger string

	// Group is the group of the trigger's program, empty for the default one. Programs of different groups may have triggers of
	// one name.
	Group string

	// StreamID and StoredAt are the event's place and time on the stream. The time is part of the place: ForEvent fills it in.
	StreamID string
	StoredAt time.Time
}

// rule is the trigger's name among those of all groups.
func (e Event) rule() string {
	if e.Group == "" {
		return e.Trigger
	}
	return e.Group + ":" + e.Trigger
}

// storedAt reads the milliseconds of a place on the stream.
func storedAt(streamID string) (time.Time, error) {
	text, _, _ := strings.Cut(streamID, "-")
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil || ms < 0 {
		return time.Time{}, fmt.Errorf("stream id %q has no time: it must be an event's place on the stream, like 1700000000000-0", streamID)
	}
	return time.UnixMilli(ms), nil
}

// Handler runs a job. Its error tells how it ended: nil, Discard, RetryIn, Snooze, or a failure to be tried again.
type Handler func(ctx context.Context, j *Job) error

// Middleware wraps every handler of a worker.
type Middleware func(next Handler) Handler

// Route binds a task to its handler.
type Route struct {
	Definition Definition
	Handle     Handler

	// Backoff tells the wait before a next attempt; nil takes the worker's.
	Backoff Backoff
}
