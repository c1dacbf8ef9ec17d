package events

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// ErrNotFound says that there is nothing under that id (any more).
var ErrNotFound = errors.New("not found")

// Entry is an event as it stands on the stream.
type Entry struct {
	StreamID string
	Event    *Event
	// Err says why Event is nil: the entry doesn't decode.
	Err error
}

// Get returns the event at a place on the stream; [ErrNotFound] once it is trimmed, or if it is no place.
func (c *Client) Get(ctx context.Context, streamID string) (*Event, error) {
	if _, err := parsePlace(streamID); err != nil {
		return nil, fmt.Errorf("read event: %w: %w", ErrNotFound, err)
	}
	found, err := c.rdb.XRangeN(ctx, c.keys.stream, streamID, streamID, 1).Result()
	if err != nil {
		return nil, fmt.Errorf("read event %s: %w", streamID, err)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("read event %s: %w", streamID, ErrNotFound)
	}
	e, err := decodeEntry(found[0].Values)
	if err != nil {
		return nil, fmt.Errorf("read event %s: %w", streamID, err)
	}
	return e, nil
}

// Range returns up to limit entries from a stream id on, oldest first, and the id from which the next page goes on:
// "" if there is none yet. From "" is the oldest.
func (c *Client) Range(ctx context.Context, from string, limit int) (entries []Entry, next string, err error) {
	found, err := c.rdb.XRangeN(ctx, c.keys.stream, cmp.Or(from, "-"), "+", pageSize(limit)+1).Result()
	if err != nil {
		return nil, "", fmt.Errorf("read events from %q: %w", from, err)
	}
	entries, next = page(found, limit)
	return entries, next, nil
}

// Recent is Range from the newest to older ones: from a stream id backwards, "" is the newest.
func (c *Client) Recent(ctx context.Context, from string, limit int) (entries []Entry, next string, err error) {
	found, err := c.rdb.XRevRangeN(ctx, c.keys.stream, cmp.Or(from, "+"), "-", pageSize(limit)+1).Result()
	if err != nil {
		return nil, "", fmt.Errorf("read events back from %q: %w", from, err)
	}
	entries, next = page(found, limit)
	return entries, next, nil
}

// maxPage bounds what one call reads.
const maxPage = 1000

func pageSize(limit int) int64 { return int64(min(max(limit, 1), maxPage)) }

func page(found []redis.XMessage, limit int) (entries []Entry, next string) {
	if n := int(pageSize(limit)); len(found) > n {
		found, next = found[:n], found[n].ID
	}
	entries = make([]Entry, len(found))
	for i, m := range found {
		entries[i].StreamID = m.ID
		entries[i].Event, entries[i].Err = decodeEntry(m.Values)
	}
	return entries, next
}

// Stats is the state of the stream and its groups.
type Stats struct {
	Length      int64  // events on the stream
	MaxEvents   int64  // the cap
	OldestID    string // "" if the stream is empty
	NewestID    string // likewise
	Groups      []GroupStats
	Undecodable int64 // entries that were set aside, ever
	Dead        int64 // dead matches waiting for somebody
}

// GroupStats is the state of one durable group.
type GroupStats struct {
	Name      string
	Consumers int64
	// Pending is how many events are delivered and not acknowledged.
	Pending int64
	// OldestPendingID is the first of them; "" if there is none.
	OldestPendingID string
	LastDeliveredID string
	// Lag is how many events were not delivered yet; counted up to 10,000 where Redis doesn't know.
	Lag int64
}

// Stats reads the state of the stream.
func (c *Client) Stats(ctx context.Context) (Stats, error) {
	s := Stats{MaxEvents: c.cfg.MaxEvents}
	var length, dead *redis.IntCmd
	var oldest, newest *redis.XMessageSliceCmd
	var junk *redis.StringCmd
	_, err := c.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		length = p.XLen(ctx, c.keys.stream)
		oldest = p.XRangeN(ctx, c.keys.stream, "-", "+", 1)
		newest = p.XRevRangeN(ctx, c.keys.stream, "+", "-", 1)
		junk = p.Get(ctx, c.keys.junkTotal)
		dead = p.HLen(ctx, c.keys.dead)
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return s, fmt.Errorf("read the state of the event stream: %w", err)
	}
	s.Length, s.Dead = length.Val(), dead.Val()
	s.OldestID, s.NewestID = firstMessageID(oldest.Val()), firstMessageID(newest.Val())
	s.Undecodable, _ = junk.Int64()
	s.Groups, err = c.groupStats(ctx)
	return s, err
}

func firstMessageID(m []redis.XMessage) string {
	if len(m) == 0 {
		return ""
	}
	return m[0].ID
}

func (c *Client) groupStats(ctx context.Context) ([]GroupStats, error) {
	groups, err := c.rdb.XInfoGroups(ctx, c.keys.stream).Result()
	if err != nil {
		if strings.Contains(err.Error(), "no such key") {
			return nil, nil
		}
		return nil, fmt.Errorf("read the groups of the event stream: %w", err)
	}
	stats := make([]GroupStats, len(groups))
	for i, g := range groups {
		stats[i] = GroupStats{
			Name: g.Name, Consumers: g.Consumers, Pending: g.Pending,
			LastDeliveredID: g.LastDeliveredID, Lag: g.Lag,
		}
		pending, err := c.rdb.XPending(ctx, c.keys.stream, g.Name).Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			return nil, fmt.Errorf("read what group %q has pending: %w", g.Name, err)
		}
		if pending != nil && pending.Count > 0 {
			stats[i].OldestPendingID = pending.Lower
		}
		// Redis loses count when entries were deleted by hand; the embedded one never counts, and reports the length.
		if g.Lag < 0 || g.Lag > 0 && g.EntriesRead == 0 {
			if stats[i].Lag, err = c.countAfter(ctx, g.LastDeliveredID); err != nil {
				return nil, fmt.Errorf("count what group %q lags behind: %w", g.Name, err)
			}
		}
	}
	return stats, nil
}

// maxCounted bounds a count that must read what it counts.
const maxCounted = 10_000

func (c *Client) countAfter(ctx context.Context, id string) (int64, error) {
	var n int64
	for n < maxCounted {
		found, err := c.rdb.XRangeN(ctx, c.keys.stream, "("+id, "+", 500).Result()
		if err != nil {
			return 0, err
		}
		n += int64(len(found))
		if len(found) < 500 {
			break
		}
		id = found[len(found)-1].ID
	}
	return n, nil
}

// RemoveGroup removes a durable group that is retired: its events stop holding back trimming. What it has pending is
// forgotten. [ErrNotFound] if there is no such group. A consumer of it that still runs makes it anew.
func (c *Client) RemoveGroup(ctx context.Context, group string) error {
	n, err := c.rdb.XGroupDestroy(ctx, c.keys.stream, group).Result()
	if err != nil && !strings.Contains(err.Error(), "requires the key to exist") {
		return fmt.Errorf("remove group %q: %w", group, err)
	}
	if n == 0 {
		return fmt.Errorf("remove group %q: %w", group, ErrNotFound)
	}
	return nil
}
