package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
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
	return c.EnqueueEach(ctx, len(entries), func(i int) (Entry, error) { return entries[i], nil })
}

// EnqueueEach is Enqueue for n entries that are made while Redis stores those before them. The message of one may be used again for the
// next; an entry's error is its answer.
func (c *Client) EnqueueEach(ctx context.Context, n int, entry func(i int) (Entry, error)) []Stored {
	answers := make([]Stored, n)
	if n == 1 {
		e, err := entry(0)
		if err != nil {
			return []Stored{{Err: err}}
		}
		answers[0] = c.EnqueueOne(ctx, e)
		return answers
	}
	s := shipment{client: c, left: n, lots: make(map[string]*lot, 1)}
	s.delivery.begin(ctx)
	for i := range n {
		e, err := entry(i)
		if err == nil {
			err = s.add(ctx, i, e)
		}
		answers[i].Err = err
		s.left--
	}
	s.finish(ctx, answers)
	return answers
}

// messageRooms are where single messages are written first. On the caller's stack, which often is a fresh one, they would make it grow.
var messageRooms = sync.Pool{New: func() any { return new(make([]byte, 0, 512)) }}

// maxRoom is the most bytes that are kept for the next message.
const maxRoom = 16 << 10

// EnqueueOne is Enqueue for one entry. Those that come one by one have no order among them.
func (c *Client) EnqueueOne(ctx context.Context, e Entry) Stored {
	if err := c.ready(ctx, e.Message.Queue); err != nil {
		return Stored{Err: err}
	}
	room := messageRooms.Get().(*[]byte)
	msg, err := e.Message.AppendTo((*room)[:0])
	if err != nil {
		return Stored{Err: err}
	}
	alone := new(struct {
		parcel
		delivery
	})
	alone.begin(ctx)
	alone.open.Add(1)
	alone.fill(&alone.delivery, 0, e)
	alone.msg = string(msg)
	if cap(msg) <= maxRoom {
		*room = msg
		messageRooms.Put(room)
	}
	c.outbox(line{e.Message.Queue, false}).push(&alone.parcel)
	alone.wait(ctx)
	return alone.stored(ctx)
}

// ready sees to what must be before jobs are stored in a queue.
func (c *Client) ready(ctx context.Context, queue string) error {
	if err := c.durable.check(c.rdb); err != nil {
		return err
	}
	if err := c.list(ctx, queue); err != nil {
		return fmt.Errorf("store in queue %q: %w", queue, err)
	}
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
