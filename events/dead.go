package events

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// ErrTooManyDead says that Config.MaxDead dead matches wait already: replay or remove some.
var ErrTooManyDead = errors.New("too many dead matches: replay or remove some, or raise max_dead")

var (
	//go:embed dead_add.lua
	deadAddSource string
	//go:embed dead_remove.lua
	deadRemoveSource string

	deadAddScript    = redis.NewScript(deadAddSource)
	deadRemoveScript = redis.NewScript(deadRemoveSource)
)

// DeadMatch is an event that a trigger matched and failed on: it waits for somebody to replay or remove it. It holds
// the event itself, which may be trimmed from the stream meanwhile.
type DeadMatch struct {
	// ID is "<stream id>/<trigger>", or "<stream id>/<group>:<trigger>": the same match, failing again after a redelivery, is the same
	// dead match.
	ID       string    `json:"id"`
	StreamID string    `json:"stream_id"`
	Trigger  string    `json:"trigger"`
	Group    string    `json:"group,omitempty"` // of the trigger's program, empty for the default one
	Error    string    `json:"error"`
	At       time.Time `json:"at"`
	Event    *Event    `json:"event"`
}

// DeadMatchID names the dead match of a trigger on the event at a place on the stream. The group is empty for the default one.
func DeadMatchID(streamID, group, trigger string) string {
	if group != "" {
		trigger = group + ":" + trigger
	}
	return streamID + "/" + trigger
}

// AddDeadMatch keeps dead matches, all or none. The ID is made from StreamID, Group and Trigger; a zero At becomes now. One that
// is kept already stays as it is. [ErrTooManyDead] if there is no room.
func (c *Client) AddDeadMatch(ctx context.Context, matches ...DeadMatch) error {
	if len(matches) == 0 {
		return nil
	}
	args := make([]any, 0, 1+3*len(matches))
	args = append(args, c.cfg.MaxDead)
	for _, m := range matches {
		if m.Trigger == "" || m.Event == nil {
			return fmt.Errorf("keep dead match of event %s: trigger and event are needed", m.StreamID)
		}
		m.ID = DeadMatchID(m.StreamID, m.Group, m.Trigger)
		place, err := placeOf(m.ID)
		if err != nil {
			return fmt.Errorf("keep dead match: %w", err)
		}
		if m.At.IsZero() {
			m.At = time.Now().UTC()
		}
		b, err := json.Marshal(m)
		if err != nil {
			return fmt.Errorf("keep dead match %s: %w", m.ID, err)
		}
		args = append(args, m.ID, place, b)
	}
	kept, err := deadAddScript.Run(ctx, c.rdb, []string{c.keys.dead, c.keys.deadInOrder}, args...).Int()
	if err != nil {
		return fmt.Errorf("keep dead match: %w", err)
	}
	if kept == 0 {
		return fmt.Errorf("keep dead match: %w", ErrTooManyDead)
	}
	return nil
}

// DeadMatches returns up to limit dead matches, those of the newest events first, and the cursor of the next page, ""
// after the last. The first page has the cursor "".
func (c *Client) DeadMatches(ctx context.Context, cursor string, limit int) (matches []DeadMatch, next string, err error) {
	from := "+"
	if cursor != "" {
		place, err := placeOf(cursor)
		if err != nil {
			return nil, "", fmt.Errorf("list dead matches: cursor: %w", err)
		}
		from = "(" + place
	}
	n := pageSize(limit)
	places, err := c.rdb.ZRevRangeByLex(ctx, c.keys.deadInOrder, &redis.ZRangeBy{Max: from, Min: "-", Count: n + 1}).Result()
	if err != nil {
		return nil, "", fmt.Errorf("list dead matches: %w", err)
	}
	more := int64(len(places)) > n
	if more {
		places = places[:n]
	}
	if len(places) == 0 {
		return nil, "", nil
	}
	ids := make([]string, len(places))
	for i, place := range places {
		ids[i] = idAt(place)
	}
	values, err := c.rdb.HMGet(ctx, c.keys.dead, ids...).Result()
	if err != nil {
		return nil, "", fmt.Errorf("list dead matches: %w", err)
	}
	for i, v := range values {
		text, ok := v.(string)
		if !ok {
			continue // removed between the two reads
		}
		m, err := decodeDeadMatch(ids[i], text)
		if err != nil {
			return nil, "", err
		}
		matches = append(matches, m)
	}
	if more {
		next = ids[len(ids)-1]
	}
	return matches, next, nil
}

// GetDeadMatch returns one dead match; [ErrNotFound] if there is none.
func (c *Client) GetDeadMatch(ctx context.Context, id string) (DeadMatch, error) {
	text, err := c.rdb.HGet(ctx, c.keys.dead, id).Result()
	if errors.Is(err, redis.Nil) {
		err = ErrNotFound
	}
	if err != nil {
		return DeadMatch{}, fmt.Errorf("read dead match %s: %w", id, err)
	}
	return decodeDeadMatch(id, text)
}

// RemoveDeadMatch forgets one dead match; [ErrNotFound] if there is none.
func (c *Client) RemoveDeadMatch(ctx context.Context, id string) error {
	place, err := placeOf(id)
	if err != nil {
		return fmt.Errorf("remove dead match: %w: %w", ErrNotFound, err)
	}
	removed, err := deadRemoveScript.Run(ctx, c.rdb, []string{c.keys.dead, c.keys.deadInOrder}, id, place).Int()
	if err != nil {
		return fmt.Errorf("remove dead match %s: %w", id, err)
	}
	if removed == 0 {
		return fmt.Errorf("remove dead match %s: %w", id, ErrNotFound)
	}
	return nil
}

func decodeDeadMatch(id, text string) (DeadMatch, error) {
	var m DeadMatch
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return DeadMatch{}, fmt.Errorf("read dead match %s: %w", id, err)
	}
	return m, nil
}

// placeOf pads the numbers of a dead match's id, so that the order of the texts is the order of the events.
func placeOf(id string) (string, error) {
	streamID, trigger, ok := strings.Cut(id, "/")
	ms, seq, dashed := strings.Cut(streamID, "-")
	if !ok || !dashed || !isNumber(ms) || !isNumber(seq) || trigger == "" {
		return "", fmt.Errorf("%q is not <stream id>/<trigger>", id)
	}
	return pad(ms) + "-" + pad(seq) + "/" + trigger, nil
}

func idAt(place string) string {
	ms, rest, _ := strings.Cut(place, "-")
	seq, trigger, _ := strings.Cut(rest, "/")
	return unpad(ms) + "-" + unpad(seq) + "/" + trigger
}

func pad(number string) string { return strings.Repeat("0", 20-len(number)) + number }

func unpad(s string) string {
	if s = strings.TrimLeft(s, "0"); s == "" {
		return "0"
	}
	return s
}

func isNumber(s string) bool {
	if s == "" || len(s) > 20 {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
}
