package events

import (
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

// A call to Redis carries at most this much, so that no other client waits long for its turn.
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

// Publish stores the events in their order, in as few calls as go, and answers for each of them: the outcome at index i
// is of event i. The error is nil if all are stored, and otherwise wraps the first fault.
func (c *Client) Publish(ctx context.Context, events ...*Event) ([]Published, error) {
	outcomes := make([]Published, len(events))
	items := c.encode(events, outcomes)
	c.store(ctx, items, outcomes)
	if full := stillFull(items, outcomes); len(full) > 0 {
		if trimmed, err := c.Trim(ctx); err == nil && trimmed.Removed > 0 {
			c.store(ctx, full, outcomes)
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
}

func (c *Client) encode(events []*Event, outcomes []Published) []publishing {
	token := rand.Text()
	items := make([]publishing, 0, len(events))
	for i, e := range events {
		if e == nil {
			outcomes[i].Err = fmt.Errorf("%w: is nil", ErrInvalid)
			continue
		}
		if err := e.Validate(); err != nil {
			outcomes[i].Err = err
			continue
		}
		b := e.AppendJSON(nil)
		if len(b) > c.cfg.MaxEventBytes {
			outcomes[i].Err = fmt.Errorf("%w: it has %d bytes, at most %d are allowed (max_event_bytes)", ErrTooLarge, len(b), c.cfg.MaxEventBytes)
			continue
		}
		items = append(items, publishing{
			index:   i,
			seenKey: c.keys.seen + dedupeHash(e.Source, e.ID),
			token:   token + "." + strconv.Itoa(i),
			json:    b,
		})
	}
	return items
}

// dedupeHash names a source and id. The length before the source keeps ("a", "bc") and ("ab", "c") apart.
func dedupeHash(source, id string) string {
	h := sha256.New()
	h.Write([]byte(strconv.Itoa(len(source)) + ":" + source + id))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:18])
}

func (c *Client) store(ctx context.Context, items []publishing, outcomes []Published) {
	for len(items) > 0 {
		n, size := 0, 0
		for n < len(items) && n < publishChunkEvents && (n == 0 || size+len(items[n].json) <= publishChunkBytes) {
			size += len(items[n].json)
			n++
		}
		c.storeChunk(ctx, items[:n], outcomes)
		items = items[n:]
	}
}

func (c *Client) storeChunk(ctx context.Context, items []publishing, outcomes []Published) {
	keys := make([]string, 0, 1+len(items))
	args := make([]any, 0, 2+2*len(items))
	keys = append(keys, c.keys.stream)
	args = append(args, c.cfg.DedupeWindow.Milliseconds(), c.cfg.MaxEvents)
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
			outcomes[it.index] = Published{Err: fmt.Errorf("store event: %w", err)}
			continue
		}
		outcomes[it.index] = published(answers[i])
		if p := &outcomes[it.index]; p.Err == nil && !p.Duplicate {
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

func stillFull(items []publishing, outcomes []Published) []publishing {
	var full []publishing
	for _, it := range items {
		if errors.Is(outcomes[it.index].Err, ErrFull) {
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
