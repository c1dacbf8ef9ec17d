package job

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

// Option sets how a job is stored and run. Passed to Define it is the default of the task's jobs, passed to Enqueue it
// holds for that job; the last one wins.
type Option func(*options) error

type options struct {
	queue     string
	maxRetry  int
	timeout   time.Duration
	retention time.Duration
	unique    time.Duration
	group     string
	backoff   Backoff

	id       string
	at       time.Time
	in       time.Duration
	deadline time.Time
	headers  map[string]string
	fired    *queue.Fired

	// ofOneJob names an option that was set and can't be a task's default.
	ofOneJob string
}

func optionsOf(d Defaults) options {
	return options{
		queue: d.Queue, maxRetry: d.MaxRetry, timeout: d.Timeout,
		retention: d.Retention, unique: d.Unique, group: d.Group,
	}
}

func (o *options) defaults() Defaults {
	return Defaults{
		Queue: o.queue, MaxRetry: o.maxRetry, Timeout: o.timeout,
		Retention: o.retention, Unique: o.unique, Group: o.group,
	}
}

// with applies options, and tells every fault of theirs.
func (o options) with(opts []Option) (options, error) {
	var faults []error
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			faults = append(faults, err)
		}
	}
	return o, errors.Join(faults...)
}

func (o *options) setHeader(key, value string) {
	headers := make(map[string]string, len(o.headers)+1)
	maps.Copy(headers, o.headers)
	headers[key] = value
	o.headers = headers
}

// Queue names the queue. Default: "default".
func Queue(name string) Option {
	return func(o *options) error {
		o.queue = name
		return wire.CheckQueue(name)
	}
}

// ID sets the job's id; a second job with the id of one that still stands in Redis is a duplicate. Default: a random UUID.
func ID(id string) Option {
	return func(o *options) error {
		o.id, o.ofOneJob = id, "ID"
		return wire.CheckID(id)
	}
}

// In starts the job after d, never earlier, counted by Redis' clock from when it is stored. Zero or less means now.
func In(d time.Duration) Option {
	return func(o *options) error {
		o.at, o.in, o.ofOneJob = time.Time{}, d, "In"
		return nil
	}
}

// At starts the job at t by Redis' clock, never earlier. A past time means now.
func At(t time.Time) Option {
	return func(o *options) error {
		o.at, o.in, o.ofOneJob = t, 0, "At"
		return nil
	}
}

// Timeout bounds one attempt, down to the millisecond; then its context ends and the attempt counts as failed.
// Default: 30 minutes.
func Timeout(d time.Duration) Option {
	return func(o *options) error {
		if d < time.Millisecond {
			return fmt.Errorf("timeout is %v, it must be at least 1ms", d)
		}
		o.timeout = d
		return nil
	}
}

// Deadline ends every attempt at t. Whichever of Timeout and Deadline comes first holds.
func Deadline(t time.Time) Option {
	return func(o *options) error {
		if t.Unix() <= 0 {
			return fmt.Errorf("deadline is %v, it must be a time after 1970", t)
		}
		o.deadline, o.ofOneJob = t, "Deadline"
		return nil
	}
}

// MaxRetry is how often a failed job is tried again after its first attempt. Default: 25.
func MaxRetry(n int) Option {
	return func(o *options) error {
		if n < 0 || n > maxInt32 {
			return fmt.Errorf("max retry is %d, it must be between 0 and %d", n, maxInt32)
		}
		o.maxRetry = n
		return nil
	}
}

const maxInt32 = 1<<31 - 1

// Retention keeps a completed job, with its result, for d (whole seconds, rounded up). Default: it is removed at once.
func Retention(d time.Duration) Option {
	return func(o *options) error {
		if d < 0 {
			return fmt.Errorf("retention is %v, it must not be negative", d)
		}
		o.retention = d
		return nil
	}
}

// Unique refuses the job as a duplicate while an equal one (task, queue, payload) is held, for d at most. The lock ends with
// the job.
func Unique(d time.Duration) Option {
	return func(o *options) error {
		if d < time.Millisecond {
			return fmt.Errorf("unique is %v, it must be at least 1ms", d)
		}
		o.unique = d
		return nil
	}
}

// Group lets the job wait in a group of its queue until a worker aggregates the group into one job.
func Group(name string) Option {
	return func(o *options) error {
		o.group = name
		return wire.CheckGroup(name)
	}
}

// Header adds metadata that travels beside the payload. Names that begin with "bellhop-" are ours.
func Header(key, value string) Option {
	return func(o *options) error {
		o.ofOneJob = "Header"
		if key == "" || strings.HasPrefix(key, headerPrefix) {
			return fmt.Errorf("header %q: the name must not be empty nor begin with %q", key, headerPrefix)
		}
		o.setHeader(key, value)
		return nil
	}
}

// Retry sets how long a failed job waits for its next attempt. It holds for a task's handler, not for one job: pass it to Define.
func Retry(b Backoff) Option {
	return func(o *options) error {
		o.backoff = b
		return nil
	}
}

// ForEvent makes the job the one that this event and trigger lead to: it is stored once, however often the event is delivered, even if
// the earlier job is already done. Unless ID is given, its id is made of both.
//
// A handler that hands its own event on to further jobs gives each of them a Trigger of its own: with the one that led to it, a job of
// the same queue is a duplicate of the handler's own job, queue.ErrHasFired.
func ForEvent(e Event) Option {
	return func(o *options) error {
		o.ofOneJob = "ForEvent"
		if e.Trigger == "" {
			return errors.New("the event has no trigger: name what makes this job of it")
		}
		stored, err := storedAt(e.StreamID)
		if err != nil {
			return err
		}
		if e.StoredAt.IsZero() {
			e.StoredAt = stored
		}
		for _, h := range e.headers() {
			o.setHeader(h.key, h.value)
		}
		o.fired = &queue.Fired{Event: e.StreamID, At: e.StoredAt, Trigger: e.rule()}
		if o.id == "" {
			o.id = e.StreamID + "-" + e.rule()
		}
		return wire.CheckID(o.id)
	}
}
