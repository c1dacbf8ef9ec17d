package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/bellhop-dev/bellhop/internal/wire"
)

// Entry is a job to be stored.
type Entry struct {
	Message *wire.Message

	// At is when the job may start, to the millisecond; zero or past means now.
	At time.Time

	// In is how long from now the job may start, by Redis' clock: it holds whatever the producer's says. Above zero it goes before At.
	In time.Duration

	// UniqueFor holds the message's UniqueKey for this long at most; zero takes no lock.
	UniqueFor time.Duration

	// Fired, if set, stores the job once for this pair of event and trigger, however often it is asked for.
	Fired *Fired
}

// Fired names an event's match with a trigger.
type Fired struct {
	Event   string    // the event's id on the stream
	At      time.Time // the event's time on the stream: the pair is forgotten with the event
	Trigger string    // its name among those of all groups
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

	// At is when a Scheduled entry starts, to the millisecond, by Redis' clock.
	At time.Time

	// Holder is the id of the job that was there first, where Err is ErrIDTaken, ErrNotUnique or ErrHasFired.
	Holder string

	// Err is nil when the job is in Redis; else one of the reasons above, or why Redis could not be asked.
	// In the latter case the job may be stored or not: asking again with the same id tells.
	Err error
}

// Enqueue stores entries, in order within each queue, and answers for each in its place. Concurrent callers share round trips.
// A request that is sent again because its answer was lost gets the first answer, even if the jobs have run by then.
//
// ctx bounds the wait: what was handed to Redis by then may be stored, and what was not is dropped.
func (c *Client) Enqueue(ctx context.Context, entries []Entry) []Stored {
	if len(entries) == 1 {
		return []Stored{c.enqueueOne(ctx, entries[0])}
	}
	answers := make([]Stored, len(entries))
	parcels := make([]*parcel, len(entries))
	for queue, indices := range byQueue(entries) {
		if err := c.ready(ctx, queue); err != nil {
			fail(answers, indices, err)
			continue
		}
		for some := range slices.Chunk(indices, pushAtOnce) {
			c.outbox(line{queue, true}).push(pack(ctx, entries, some, parcels, answers)...)
		}
	}
	for i, p := range parcels {
		if p != nil {
			answers[i] = p.wait(ctx)
		}
	}
	return answers
}

// pushAtOnce is how many entries are handed to the outbox together: Redis stores them while the next ones are encoded.
const pushAtOnce = 200

// pack makes parcels of some entries, and answers for those that can't be encoded.
func pack(ctx context.Context, entries []Entry, indices []int, parcels []*parcel, answers []Stored) []*parcel {
	packed := make([]*parcel, 0, len(indices))
	for _, i := range indices {
		p, err := newParcel(ctx, entries[i])
		if err != nil {
			answers[i].Err = err
			continue
		}
		parcels[i] = p
		packed = append(packed, p)
	}
	return packed
}

func (c *Client) enqueueOne(ctx context.Context, e Entry) Stored {
	if err := c.ready(ctx, e.Message.Queue); err != nil {
		return Stored{Err: err}
	}
	p, err := newParcel(ctx, e)
	if err != nil {
		return Stored{Err: err}
	}
	c.outbox(line{e.Message.Queue, false}).push(p)
	return p.wait(ctx)
}

// ready sees to what must be before jobs are stored in a queue.
func (c *Client) ready(ctx context.Context, queue string) error {
	err := c.durable.check(c.rdb)
	if err == nil {
		err = c.list(ctx, queue)
	}
	if err != nil {
		return fmt.Errorf("list queue %q: %w", queue, err)
	}
	return nil
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

// ceilMilli rounds up, so that a job never starts before its time.
func ceilMilli(t time.Time) int64 {
	ms := t.UnixMilli()
	if t.After(time.UnixMilli(ms)) {
		ms++
	}
	return ms
}

func stored(state, told string) Stored {
	switch state {
	case "id":
		return Stored{Holder: told, Err: ErrIDTaken}
	case "unique":
		return Stored{Holder: told, Err: ErrNotUnique}
	case "fired":
		return Stored{Holder: told, Err: ErrHasFired}
	case string(Scheduled):
		ms, err := strconv.ParseInt(told, 10, 64)
		if err != nil {
			return Stored{Err: fmt.Errorf("%w: start %q", errUnexpected, told)}
		}
		return Stored{State: Scheduled, At: time.UnixMilli(ms)}
	case string(Pending), string(Aggregating):
		return Stored{State: State(state)}
	}
	return Stored{Err: fmt.Errorf("%w: %q", errUnexpected, state)}
}
