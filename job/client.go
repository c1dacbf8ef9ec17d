package job

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

// Client enqueues jobs. It is safe for concurrent use. What becomes of them, fleet.Client tells (Job, Await), and asynq.Inspector; over HTTP
// the gateway.
type Client struct {
	queue *queue.Client
}

// ClientOption changes what NewClient returns.
type ClientOption = queue.Option

// Durable makes the client wait until so many replicas have a job too before it is acknowledged, at most so long (default 1s); else
// enqueueing fails with queue.ErrNotReplicated. It is off by default: each round trip then takes one to the slowest of them, too. It
// holds for jobs alone; for published events see events.Config.Replicas, for the rest queue.Durable.
func Durable(replicas int, within time.Duration) ClientOption { return queue.Durable(replicas, within) }

// NewClient returns a client over rdb, which stays the caller's to close. It panics if that is nil.
func NewClient(rdb redis.UniversalClient, opts ...ClientOption) *Client {
	if rdb == nil {
		panic("bellhop: job.NewClient: no Redis client was given")
	}
	return &Client{queue: queue.New(rdb, opts...)}
}

// Info tells where an enqueued job stands when Redis has it. What becomes of it, fleet.Client.Job tells.
type Info struct {
	ID    string      `json:"id"`
	Task  string      `json:"task"`
	Queue string      `json:"queue"`
	State queue.State `json:"state"`

	// At is when a scheduled job starts, to the millisecond, rounded up; zero if at once.
	At time.Time `json:"at,omitzero"`
}

// Result is what became of one job of many.
type Result struct {
	Info *Info
	Err  error
}

// ErrDuplicate tells, by errors.Is, that no job was stored because one stands in its place; see DuplicateError.
var ErrDuplicate = errors.New("duplicate")

// DuplicateError names the job that was there first.
type DuplicateError struct {
	ID     string // of the earlier job
	Reason error  // queue.ErrIDTaken, queue.ErrNotUnique or queue.ErrHasFired
}

func (e *DuplicateError) Error() string {
	return fmt.Sprintf("duplicate of job %s: %v", e.ID, e.Reason)
}

// Is makes every DuplicateError an ErrDuplicate.
func (e *DuplicateError) Is(target error) bool { return target == ErrDuplicate }

// Unwrap returns the reason.
func (e *DuplicateError) Unwrap() error { return e.Reason }

// Request is a job to be enqueued: made by Task.Request or Definition.Request. It has its id from then on, so that a request
// whose answer was lost can be given again: the second answer is a duplicate of itself.
type Request struct {
	task    string
	payload []byte
	options options
}

// ID is the id that the job will have.
func (r Request) ID() string { return r.options.id }

// check refuses what nobody could run or look up. Requests that were made by Request pass.
func (r Request) check() error {
	if r.task == "" && r.options.id == "" {
		return errors.New("the request is empty: make it with Task.Request or Definition.Request")
	}
	return errors.Join(wire.CheckTask(r.task), wire.CheckQueue(r.options.queue), wire.CheckID(r.options.id))
}

// Enqueue stores one job and returns once Redis has it. A duplicate is told by errors.Is(err, ErrDuplicate).
func (c *Client) Enqueue(ctx context.Context, r Request) (*Info, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("enqueue: %w", err)
	}
	return c.enqueue(ctx, r)
}

func (c *Client) enqueue(ctx context.Context, r Request) (*Info, error) {
	var m wire.Message
	stored := c.queue.EnqueueOne(ctx, r.entry(&m))
	result := resultOf(&Info{ID: r.options.id, Task: r.task, Queue: r.options.queue}, stored)
	return result.Info, result.Err
}

// EnqueueMany stores many jobs in few round trips and answers for each in its place.
func (c *Client) EnqueueMany(ctx context.Context, requests []Request) []Result {
	var m wire.Message
	return c.enqueueEach(ctx, len(requests), func(i int) (queue.Entry, error) {
		if err := requests[i].check(); err != nil {
			return queue.Entry{}, fmt.Errorf("enqueue: %w", err)
		}
		return requests[i].entry(&m), nil
	})
}

// enqueueEach stores jobs whose entries are made one after the other.
func (c *Client) enqueueEach(ctx context.Context, n int, entry func(i int) (queue.Entry, error)) []Result {
	results, infos := make([]Result, n), make([]Info, n)
	answers := c.queue.EnqueueEach(ctx, n, func(i int) (queue.Entry, error) {
		e, err := entry(i)
		if err != nil {
			results[i].Err = err
			return e, err
		}
		infos[i] = Info{ID: e.Message.ID, Task: e.Message.Type, Queue: e.Message.Queue}
		return e, nil
	})
	for i, stored := range answers {
		if results[i].Err == nil {
			results[i] = resultOf(&infos[i], stored)
		}
	}
	return results
}

// ForgetFired drops what is remembered of events older than before, so that ForEvent no longer knows them. It is called once they
// have left the stream and can't be delivered again.
func (c *Client) ForgetFired(ctx context.Context, before time.Time) error {
	return c.queue.ForgetFired(ctx, before)
}

func resultOf(info *Info, s queue.Stored) Result {
	switch {
	case s.Err == nil:
	case errors.Is(s.Err, queue.ErrIDTaken), errors.Is(s.Err, queue.ErrNotUnique), errors.Is(s.Err, queue.ErrHasFired):
		return Result{Err: &DuplicateError{ID: s.Holder, Reason: s.Err}}
	default:
		return Result{Err: fmt.Errorf("enqueue %s: %w", info.Task, s.Err)}
	}
	info.State = s.State
	if s.State == queue.Scheduled {
		info.At = s.At
	}
	return Result{Info: info}
}

// entry writes the request as asynq's message into m. Times there are whole seconds: they are rounded up, and the exact ones go beside.
func (r Request) entry(m *wire.Message) queue.Entry {
	o := r.options
	o.timeout, o.retention = min(o.timeout, queue.LongestTime), min(o.retention, queue.LongestTime)
	*m = wire.Message{
		Type: r.task, ID: o.id, Queue: o.queue, Retry: o.maxRetry,
		Timeout: ceilSeconds(o.timeout), Retention: ceilSeconds(o.retention), GroupKey: o.group,
	}
	if o.timeout%time.Second != 0 {
		o.setHeader(headerTimeout, o.timeout.String())
	}
	if !o.deadline.IsZero() {
		m.Deadline = o.deadline.Unix()
		if o.deadline.Nanosecond() != 0 {
			m.Deadline++
			o.setHeader(headerDeadline, o.deadline.UTC().Format(time.RFC3339Nano))
		}
	}
	m.Headers = o.headers
	r.fill(m, r.payload)
	return queue.Entry{Message: m, At: o.at, In: o.in, UniqueFor: o.unique, Fired: o.fired}
}

// fill sets what hangs on the payload.
func (r Request) fill(m *wire.Message, payload []byte) {
	m.Payload = payload
	if r.options.unique > 0 {
		m.UniqueKey = wire.UniqueKey(m.Queue, m.Type, payload)
	}
}

func ceilSeconds(d time.Duration) int64 {
	s := int64(d / time.Second)
	if d%time.Second > 0 {
		s++
	}
	return s
}
