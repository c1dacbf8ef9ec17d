package events

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"
)

var (
	// ErrFull says that the stream is at its cap and every event on it still awaits a durable group: publishing is
	// refused until that group catches up. Over HTTP it is a 503.
	ErrFull = errors.New("event stream is full: a durable group lags behind; see that its workers run, or remove a retired group")
	// ErrTooLarge says that the event's JSON form is larger than Config.MaxEventBytes.
	ErrTooLarge = errors.New("event is too large")
)

// A call to Redis carries about this much at most, so that no other client waits long for its turn.
const (
	publishChunkEvents = 500
	publishChunkBytes  = 1 << 20
)

//go:embed publish.lua
var publishSource string

var publishScript = redis.NewScript(publishSource)

// Published is the outcome of one event.
type Published struct {
	// StreamID is the event's place on the stream; of a duplicate, the place of the first one.
	StreamID string
	// Duplicate says that source and id were published before, within Config.DedupeWindow; nothing was stored.
	Duplicate bool
	// Err is nil once the event is stored (or was). ErrInvalid, ErrTooLarge, ErrFull, or a fault of Redis; after
	// the last, the event may be stored: publish it again, it is stored once.
	Err error
}

// Publish stores the events in their order, and answers for each of them: the outcome at index i is of event i. The error is nil if
// all are stored, and otherwise wraps the first fault.
//
// Concurrent calls share their round trips: what is published while one is under way goes with the next. Each answers under its own
// ctx; if that ends meanwhile, it may be unknown whether the events are stored. After a fault of Redis the rest isn't sent.
func (c *Client) Publish(ctx context.Context, events ...*Event) ([]Published, error) {
	outcomes := make([]Published, len(events))
	token := rand.Text()
	for at := 0; at < len(events); {
		p, next := c.pack(ctx, token, events, at, outcomes)
		at = next
		if len(p.items) == 0 {
			continue
		}
		if err := c.post(p, outcomes); err != nil {
			for i := at; i < len(events); i++ {
				outcomes[i].Err = fmt.Errorf("store event: not sent after others failed: %w", err)
			}
			break
		}
	}
	return outcomes, firstFault(outcomes)
}

// PublishOne stores one event.
func (c *Client) PublishOne(ctx context.Context, event *Event) (Published, error) {
	outcomes, err := c.Publish(ctx, event)
	return outcomes[0], err
}

// publishing is an event on its way into the stream.
type publishing struct {
	index   int
	seenKey string
	token   string
	json    []byte
	answer  Published
	broken  error // the fault of Redis, if it had one
}

// pack takes what fits into one call from the events at an index on, and returns the index after them. What can't be stored is answered.
func (c *Client) pack(ctx context.Context, token string, events []*Event, at int, outcomes []Published) (p *parcel, next int) {
	p = &parcel{ctx: ctx, done: make(chan struct{})}
	for ; at < len(events) && len(p.items) < publishChunkEvents && p.bytes < publishChunkBytes; at++ {
		b, err := c.encode(events[at])
		if err != nil {
			outcomes[at].Err = err
			continue
		}
		p.bytes += len(b)
		p.items = append(p.items, publishing{
			index:   at,
			seenKey: c.keys.seen + dedupeHash(events[at].Source, events[at].ID),
			token:   token + "." + strconv.Itoa(at),
			json:    b,
		})
	}
	return p, at
}

func (c *Client) encode(e *Event) ([]byte, error) {
	if e == nil {
		return nil, fmt.Errorf("%w: is nil", ErrInvalid)
	}
	if err := e.Validate(); err != nil {
		return nil, err
	}
	b := e.AppendJSON(nil)
	if len(b) > c.cfg.MaxEventBytes {
		return nil, fmt.Errorf("%w: it has %d bytes, at most %d are allowed (max_event_bytes)", ErrTooLarge, len(b), c.cfg.MaxEventBytes)
	}
	return b, nil
}

// post has a parcel stored. Its error is that of Redis or of the caller's context.
func (c *Client) post(p *parcel, outcomes []Published) error {
	if err := c.outbox.store(p); err != nil {
		// The sender may still write the answers: they are not looked at.
		for i := range p.items {
			outcomes[p.items[i].index].Err = fmt.Errorf("store event: %w", err)
		}
		return err
	}
	var broken error
	for i := range p.items {
		outcomes[p.items[i].index] = p.items[i].answer
		broken = cmp.Or(broken, p.items[i].broken)
	}
	return broken
}

// dedupeHash names a source and id. The length before the source keeps ("a", "bc") and ("ab", "c") apart.
func dedupeHash(source, id string) string {
	h := sha256.New()
	h.Write([]byte(strconv.Itoa(len(source)) + ":" + source + id))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:18])
}

// storeChunk stores items in one call and writes their answers.
func (c *Client) storeChunk(ctx context.Context, items []*publishing) {
	keys := make([]string, 0, 1+len(items))
	args := make([]any, 0, 3+2*len(items))
	keys = append(keys, c.keys.stream)
	args = append(args, c.cfg.DedupeWindow.Milliseconds(), c.cfg.MaxEvents, boolToInt(c.cfg.Replicas > 0))
	for _, it := range items {
		keys = append(keys, it.seenKey)
		args = append(args, it.token, it.json)
	}
	answers, unconfirmed, err := c.runPublish(ctx, keys, args)
	if err == nil && len(answers) != len(items) {
		err = fmt.Errorf("%d answers to %d events", len(answers), len(items))
	}
	for i, it := range items {
		if err != nil {
			it.answer, it.broken = Published{Err: fmt.Errorf("store event: %w", err)}, err
			continue
		}
		it.answer = published(answers[i])
		if p := &it.answer; p.Err == nil {
			p.Err = unconfirmed
		}
	}
}

func published(answer any) Published {
	pair, _ := answer.([]any)
	if len(pair) != 2 {
		return Published{Err: fmt.Errorf("store event: Redis answered %v", answer)}
	}
	id, _ := pair[1].(string)
	switch kind, _ := pair[0].(int64); kind {
	case 0:
		return Published{StreamID: id}
	case 1:
		return Published{StreamID: id, Duplicate: true}
	default:
		return Published{Err: ErrFull}
	}
}

func stillFull(items []*publishing) []*publishing {
	var full []*publishing
	for _, it := range items {
		if errors.Is(it.answer.Err, ErrFull) {
			full = append(full, it)
		}
	}
	return full
}

func firstFault(outcomes []Published) error {
	var first error
	failed := 0
	for i := range outcomes {
		if outcomes[i].Err != nil {
			failed++
			if first == nil {
				first = outcomes[i].Err
			}
		}
	}
	switch {
	case first == nil:
		return nil
	case len(outcomes) == 1:
		return fmt.Errorf("publish event: %w", first)
	default:
		return fmt.Errorf("publish events: %d of %d failed, the first one: %w", failed, len(outcomes), first)
	}
}
