package queue

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/wire"
)

// Entry is a job to be stored.
type Entry struct {
	Message *wire.Message

	// At is when the job may start, to the millisecond; zero or past means now.
	At time.Time

	// UniqueFor holds the message's UniqueKey for this long at most; zero takes no lock.
	UniqueFor time.Duration

	// Fired, if set, stores the job once for this pair of event and trigger, however often it is asked for.
	Fired *Fired
}

// Fired names an event's match with a trigger.
type Fired struct {
	Event   string    // the event's id on the stream
	At      time.Time // the event's time on the stream: the pair is forgotten with the event
	Trigger string
}

func (f *Fired) member() string { return f.Event + "/" + f.Trigger }

// State is where an entry came to stand.
type State string

// The states that a stored entry starts in, in asynq's words.
const (
	Pending     State = "pending"
	Scheduled   State = "scheduled"
	Aggregating State = "aggregating"
)

// Reasons why an entry was not stored: something stands in Redis already. The message of the earlier job is left as it is.
var (
	ErrIDTaken    = errors.New("a job with this id exists")
	ErrNotUnique  = errors.New("an equal job holds the unique lock")
	ErrHasFired   = errors.New("the trigger has fired for this event")
	errUnexpected = errors.New("unexpected answer from the script")
)

// Stored is what became of one entry.
type Stored struct {
	State State

	// Holder is the id of the job that was there first, where Err is ErrIDTaken, ErrNotUnique or ErrHasFired.
	Holder string

	// Err is nil when the job is in Redis; else one of the reasons above, or why Redis could not be asked.
	// In the latter case the job may be stored or not: asking again with the same id tells.
	Err error
}

//go:embed enqueue.lua
var enqueueSource string

var enqueueScript = redis.NewScript(enqueueSource)

// The most jobs and payload bytes that one call of the script carries: it must not hold Redis' one thread for long.
const (
	maxCallJobs  = 500
	maxCallBytes = 4 << 20
)

// Enqueue stores entries, in order within each queue, and answers for each in its place.
func (c *Client) Enqueue(ctx context.Context, entries []Entry) []Stored {
	answers := make([]Stored, len(entries))
	for queue, indices := range byQueue(entries) {
		if err := c.list(ctx, queue); err != nil {
			fail(answers, indices, fmt.Errorf("list queue %q: %w", queue, err))
			continue
		}
		c.enqueue(ctx, queue, entries, indices, answers)
	}
	return answers
}

func byQueue(entries []Entry) map[string][]int {
	queues := make(map[string][]int, 1)
	for i, e := range entries {
		queues[e.Message.Queue] = append(queues[e.Message.Queue], i)
	}
	return queues
}

func fail(answers []Stored, indices []int, err error) {
	for _, i := range indices {
		answers[i].Err = err
	}
}

func (c *Client) enqueue(ctx context.Context, queue string, entries []Entry, indices []int, answers []Stored) {
	for len(indices) > 0 {
		call := newEnqueueCall(queue)
		for len(indices) > 0 && !call.full() {
			i := indices[0]
			indices = indices[1:]
			if err := call.add(i, entries[i]); err != nil {
				answers[i].Err = err
			}
		}
		call.run(ctx, c.rdb, answers)
	}
}

// enqueueCall is one call of the script: some jobs of one queue.
type enqueueCall struct {
	queue   string
	indices []int
	args    []any
	bytes   int
}

func newEnqueueCall(queue string) *enqueueCall {
	return &enqueueCall{queue: queue, args: []any{wire.JobPrefix(queue), wire.GroupKey(queue, "")}}
}

func (c *enqueueCall) full() bool { return len(c.indices) >= maxCallJobs || c.bytes >= maxCallBytes }

func (c *enqueueCall) add(index int, e Entry) error {
	msg, err := e.Message.Encode()
	if err != nil {
		return err
	}
	var start, ttl, firedAt int64
	var unique, fired string
	if !e.At.IsZero() {
		start = ceilMilli(e.At)
	}
	if e.UniqueFor > 0 {
		unique, ttl = e.Message.UniqueKey, max(e.UniqueFor.Milliseconds(), 1)
		if wait := time.Until(e.At); !e.At.IsZero() && wait > 0 {
			ttl += wait.Milliseconds() // as in asynq, the lock's time counts from the start of the job
		}
	}
	if e.Fired != nil {
		fired, firedAt = e.Fired.member(), e.Fired.At.UnixMilli()
	}
	c.indices = append(c.indices, index)
	c.args = append(c.args, e.Message.ID, msg, start, unique, ttl, e.Message.GroupKey, fired, firedAt)
	c.bytes += len(msg)
	return nil
}

// ceilMilli rounds up, so that a job never starts before its time.
func ceilMilli(t time.Time) int64 {
	ms := t.UnixMilli()
	if t.After(time.UnixMilli(ms)) {
		ms++
	}
	return ms
}

func (c *enqueueCall) run(ctx context.Context, rdb redis.UniversalClient, answers []Stored) {
	if len(c.indices) == 0 {
		return
	}
	keys := []string{wire.PendingKey(c.queue), wire.ScheduledKey(c.queue), wire.AllGroups(c.queue), wire.FiredKey(c.queue)}
	reply, err := enqueueScript.Run(ctx, rdb, keys, c.args...).StringSlice()
	if err == nil && len(reply) != 2*len(c.indices) {
		err = fmt.Errorf("%w: %d values for %d jobs", errUnexpected, len(reply), len(c.indices))
	}
	if err != nil {
		fail(answers, c.indices, fmt.Errorf("enqueue to %q: %w", c.queue, err))
		return
	}
	for n, i := range c.indices {
		answers[i] = stored(reply[2*n], reply[2*n+1])
	}
}

func stored(state, holder string) Stored {
	switch state {
	case "id":
		return Stored{Holder: holder, Err: ErrIDTaken}
	case "unique":
		return Stored{Holder: holder, Err: ErrNotUnique}
	case "fired":
		return Stored{Holder: holder, Err: ErrHasFired}
	case string(Pending), string(Scheduled), string(Aggregating):
		return Stored{State: State(state)}
	}
	return Stored{Err: fmt.Errorf("%w: %q", errUnexpected, state)}
}
