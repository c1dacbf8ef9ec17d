package events

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// ErrTrimmed says that events after the place from which a [Tail] was to go on, or had come to, may have been trimmed from the stream.
var ErrTrimmed = errors.New("events after that place may have been trimmed from the stream")

// Beginning is the place before the oldest event on the stream.
const Beginning = "0-0"

// Tail follows the stream, for watching: it is no durable group, so it holds back no trimming and acknowledges nothing. All tails of a
// client share one blocking read of Redis. One that is read slowly delays no other: what can't be kept for it, it reads from Redis
// later, at its own pace; when trimming overtakes it, it is told.
//
// Its methods are for one goroutine at a time. The events are shared with other tails: they must not be changed. Close it.
type Tail struct {
	client *Client
	filter filter

	at      place // what is up to here was returned, or doesn't match
	ready   []seen
	readyTo place // up to here ready is all there is
	gap     error

	member *member // nil while the stream is read by this tail alone
	pace   pace
	caught bool // up with the stream, a moment ago
}

// Tail returns a tail of the events whose type matches the pattern, or all for "". It goes on after a stream id: "" is now, [Beginning]
// the oldest event that is kept. The error is an [ErrQuery], or a fault of Redis.
func (c *Client) Tail(ctx context.Context, after, pattern string) (*Tail, error) {
	f, err := newFilter(pattern, "", "")
	if err != nil {
		return nil, err
	}
	t := &Tail{client: c, filter: f}
	if after == "" {
		t.at, err = c.newest(ctx)
		t.readyTo, t.caught = t.at, true
		return t, err
	}
	if t.at, err = parsePlace(after); err != nil {
		return nil, fmt.Errorf("%w: after: %w", ErrQuery, err)
	}
	t.readyTo = t.at
	if err := t.catchUp(ctx); err != nil {
		if !errors.Is(err, ErrTrimmed) {
			return nil, err
		}
		t.gap = err
	}
	return t, nil
}

// newest is the place of the newest event; the beginning if there is none, since what comes is after it in any case.
func (c *Client) newest(ctx context.Context) (place, error) {
	newest, err := c.rdb.XRevRangeN(ctx, c.keys.stream, "+", "-", 1).Result()
	if err != nil {
		return place{}, fmt.Errorf("read the newest event: %w", err)
	}
	if len(newest) == 0 {
		return place{}, nil
	}
	return parsePlace(newest[0].ID)
}

// Next returns the next event that matches, and waits for it. An outage of Redis is waited out. The error is ctx's, or [ErrTrimmed], once
// for each hole: after it Next goes on with the oldest event there is.
func (t *Tail) Next(ctx context.Context) (Entry, error) {
	for failures, idle := 0, 0; ; {
		switch {
		case t.gap != nil:
			err := t.gap
			t.gap = nil
			return Entry{}, err
		case len(t.ready) > 0:
			return t.pop(), nil
		case ctx.Err() != nil:
			return Entry{}, ctx.Err()
		case t.member == nil:
			t.member = t.client.hub.join(ctx, t.readyTo, t.filter, t.caught)
		}
		if t.member != nil {
			t.listen(ctx)
			continue
		}
		before := t.readyTo
		switch err := t.catchUp(ctx); {
		case err == nil && t.readyTo == before:
			// There is nothing more. Should the hub, which is elsewhere, not take it next time, it doesn't ask without a pause.
			if idle++; idle > 1 {
				sleep(ctx.Done(), backoff(idle-1, minWait, maxWait))
			}
		case err == nil:
			failures, idle = 0, 0
		case errors.Is(err, ErrTrimmed):
			t.gap = err
		case errors.Is(err, redis.ErrClosed):
			return Entry{}, err
		default:
			failures++
			sleep(ctx.Done(), backoff(failures, minWait, maxWait))
		}
	}
}

func (t *Tail) pop() Entry {
	s := t.ready[0]
	t.ready = t.ready[1:]
	t.at = s.at
	return s.Entry
}

// listen waits for what the hub brings, or for its end.
func (t *Tail) listen(ctx context.Context) {
	waiting, at, dropped := t.member.fetch()
	t.ready, t.readyTo = waiting, at
	switch {
	case dropped:
		t.member, t.caught = nil, false
	case len(waiting) == 0:
		select {
		case <-t.member.more:
		case <-ctx.Done():
		}
	}
}

// catchUp reads the next events from Redis, at this tail's own pace.
func (t *Tail) catchUp(ctx context.Context) error {
	c, count := t.client, t.pace.count(paceCounts)
	var next, oldest, newest *redis.XMessageSliceCmd
	_, err := c.rdb.TxPipelined(ctx, func(p redis.Pipeliner) error {
		next = p.XRangeN(ctx, c.keys.stream, t.readyTo.next().String(), "+", int64(count))
		oldest = p.XRangeN(ctx, c.keys.stream, "-", "+", 1)
		newest = p.XRevRangeN(ctx, c.keys.stream, "+", "-", 1)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read events after %s: %w", t.readyTo, err)
	}
	if err := t.missed(ctx, oldest.Val(), newest.Val()); err != nil {
		return err
	}
	found := next.Val()
	t.pace.saw(found)
	t.caught = len(found) < count
	for _, m := range found {
		s, err := newSeen(m)
		if err != nil {
			return err
		}
		t.readyTo = s.at
		if t.filter.match(s.Entry) {
			t.ready = append(t.ready, s)
		}
	}
	return nil
}

// missed tells whether the stream now begins after where the tail is, and takes the tail to where it begins. That the very next event
// is the oldest one can't be seen: it counts as missed too. So does a stream that ends before: a failover has lost its end, and what
// came since may stand before that place.
func (t *Tail) missed(ctx context.Context, oldest, newest []redis.XMessage) error {
	if t.readyTo == (place{}) {
		return nil // it wants whatever there is
	}
	begins := t.readyTo
	if len(oldest) > 0 && len(newest) > 0 {
		first, errFirst := parsePlace(oldest[0].ID)
		last, errLast := parsePlace(newest[0].ID)
		switch {
		case errFirst != nil || errLast != nil:
			return errors.Join(errFirst, errLast)
		case t.readyTo.before(first):
			begins = first.previous()
		case last.before(t.readyTo):
			begins = last
		}
	} else if last, ok := t.client.lastGenerated(ctx); ok && t.readyTo != last {
		begins, t.caught = last, true
	}
	if begins == t.readyTo {
		return nil
	}
	from := t.readyTo
	t.readyTo = begins
	return fmt.Errorf("%w: what came after %s, up to %s", ErrTrimmed, from, begins)
}

// lastGenerated is the place of the last event that ever was on an empty stream, where Redis knows; the beginning if there is no stream.
func (c *Client) lastGenerated(ctx context.Context) (place, bool) {
	info, err := c.rdb.XInfoStream(ctx, c.keys.stream).Result()
	if err != nil {
		return place{}, redis.HasErrorPrefix(err, "no such key")
	}
	last, err := parsePlace(info.LastGeneratedID)
	return last, err == nil
}

// Position is the stream id from which another tail goes on without a hole and without a repetition: that of the last event returned, or
// a later one up to where nothing matches.
func (t *Tail) Position() string {
	if len(t.ready) == 0 && t.gap == nil {
		t.at = t.readyTo
		if t.member != nil {
			t.at = t.member.settled(t.at)
		}
	}
	return t.at.String()
}

// Close ends the tail.
func (t *Tail) Close() {
	if t.member != nil {
		t.client.hub.leave(t.member)
		t.member = nil
	}
}
