package job

import (
	"context"
	"encoding/json"
	"fmt"
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

	// StreamID and StoredAt are the event's place and time on the stream.
	StreamID string
	StoredAt time.Time
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
