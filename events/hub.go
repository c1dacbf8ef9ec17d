package events

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// hubBlock is how long a blocked read of the hub lasts at most, and so how long the hub outlives its last tail.
const hubBlock = 2 * time.Second

// hubLate is how late a read may be until the hub looks whether trimming has passed it. Events that are younger are not trimmed, but on a
// stream whose cap is far too small.
const hubLate = hubBlock + time.Second

// What the hub remembers, so that a tail that has just read up to here can join without a hole; and what it keeps for a tail that
// doesn't fetch it.
const (
	maxRecent         = 256
	maxRecentBytes    = 1 << 20
	maxUnfetched      = 1000
	maxUnfetchedBytes = 4 << 20
)

// hub is the one blocking read that all tails of a client share. It runs while there are tails.
type hub struct {
	client *Client

	failures atomic.Int64 // of the read, in a row

	mu      sync.Mutex
	running bool
	at      place // what is up to here was handed out
	members map[*member]struct{}
	// recent is everything after recentFrom, up to at.
	recent      []seen
	recentBytes int
	recentFrom  place
}

// seen is an entry that the hub has read.
type seen struct {
	Entry
	at    place
	bytes int
}

func newSeen(m redis.XMessage) (seen, error) {
	at, err := parsePlace(m.ID)
	if err != nil {
		return seen{}, err
	}
	s := seen{Entry: Entry{StreamID: m.ID}, at: at, bytes: size(m)}
	s.Event, s.Err = decodeEntry(m.Values)
	return s, nil
}

// member is a tail at the hub.
type member struct {
	filter filter
	more   chan struct{} // has a value when there is something to fetch

	mu        sync.Mutex
	at        place // what is up to here was looked at
	unfetched []seen
	bytes     int
	dropped   bool // it fell behind, or the hub can't go on: what comes after at is to be read from Redis
}

// join makes a tail a member from a place on; nil if the hub is past that place already. An idle hub starts at the place, if the tail
// has caught up with the stream.
func (h *hub) join(ctx context.Context, from place, f filter, caughtUp bool) *member {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.running {
		if !caughtUp {
			return nil
		}
		h.running = true
		h.at, h.recentFrom, h.recent, h.recentBytes = from, from, nil, 0
		h.members = make(map[*member]struct{})
		// It serves all the tails, whoever came first; leave ends it.
		go h.run(context.WithoutCancel(ctx))
	}
	if from.before(h.recentFrom) {
		return nil
	}
	m := &member{filter: f, more: make(chan struct{}, 1), at: from}
	m.feed(h.recent, h.at)
	h.members[m] = struct{}{}
	return m
}

func (h *hub) leave(m *member) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.members, m)
}

// run reads and hands out until nobody listens. Redis wakes it for each event.
func (h *hub) run(ctx context.Context) {
	var pace pace
	h.failures.Store(0)
	for last := time.Now(); h.wanted(); {
		count := pace.count(paceCounts)
		found, err := h.read(ctx, count)
		switch late := h.failures.Load() > 0 || len(found) == count || time.Since(last) > hubLate; {
		case err == nil && late && h.overtaken(ctx), errors.Is(err, redis.ErrClosed):
			// Trimming may have passed the hub, or a failover have lost the end of the stream: each tail finds out what that means to it.
			h.dropAll()
			return
		case err == nil:
			h.failures.Store(0)
			last = time.Now()
			pace.saw(found)
			h.handOut(found)
		default:
			sleep(ctx.Done(), backoff(int(h.failures.Add(1)), minWait, maxWait))
		}
	}
}

// wanted ends the hub, if it has no member.
func (h *hub) wanted() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.members) == 0 {
		h.running, h.recent = false, nil
	}
	return h.running
}

func (h *hub) read(ctx context.Context, count int) ([]redis.XMessage, error) {
	streams, err := h.client.rdb.XRead(ctx, &redis.XReadArgs{
		Streams: []string{h.client.keys.stream, h.at.String()}, Count: int64(count), Block: hubBlock,
	}).Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil // the block ran out
	}
	if err != nil || len(streams) == 0 {
		return nil, err
	}
	return streams[0].Messages, nil
}

// overtaken tells whether the stream begins after where the hub is, or ends before.
func (h *hub) overtaken(ctx context.Context) bool {
	oldest, err := h.client.rdb.XRangeN(ctx, h.client.keys.stream, "-", "+", 1).Result()
	if err != nil || len(oldest) == 0 {
		return err != nil
	}
	first, err := parsePlace(oldest[0].ID)
	if err != nil || h.at.before(first) {
		return true
	}
	last, err := h.client.newest(ctx)
	return err != nil || last.before(h.at)
}

func (h *hub) dropAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for m := range h.members {
		m.drop()
	}
	h.members, h.recent, h.running = nil, nil, false
}

// handOut gives every member what came. It waits for none of them.
func (h *hub) handOut(found []redis.XMessage) {
	came := make([]seen, 0, len(found))
	for _, m := range found {
		s, err := newSeen(m)
		if err != nil {
			continue // Redis makes no such ids
		}
		came = append(came, s)
	}
	if len(came) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at = came[len(came)-1].at
	for m := range h.members {
		if !m.feed(came, h.at) {
			delete(h.members, m)
		}
	}
	h.remember(came)
}

func (h *hub) remember(came []seen) {
	h.recent = append(h.recent, came...)
	for _, s := range came {
		h.recentBytes += s.bytes
	}
	n := 0
	for ; len(h.recent)-n > maxRecent || h.recentBytes > maxRecentBytes && n < len(h.recent); n++ {
		h.recentBytes -= h.recent[n].bytes
		h.recentFrom = h.recent[n].at
	}
	h.recent = slices.Delete(h.recent, 0, n)
}

// feed adds what the member has not seen yet and looks for; all is up to where was looked. false: it holds too much already, and is
// dropped; what it holds it may still fetch.
func (m *member) feed(came []seen, all place) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range came {
		if !m.at.before(s.at) {
			continue
		}
		if m.filter.match(s.Entry) {
			if len(m.unfetched) >= maxUnfetched || m.bytes+s.bytes > maxUnfetchedBytes && len(m.unfetched) > 0 {
				m.dropped = true
				return false
			}
			m.unfetched = append(m.unfetched, s)
			m.bytes += s.bytes
			m.wake()
		}
		m.at = s.at
	}
	if m.at.before(all) {
		m.at = all
	}
	return true
}

func (m *member) drop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dropped = true
	m.wake()
}

func (m *member) wake() {
	select {
	case m.more <- struct{}{}:
	default:
	}
}

// fetch takes all that waits, and tells up to where that is complete, and whether no more will come.
func (m *member) fetch() (waiting []seen, at place, dropped bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	waiting, m.unfetched, m.bytes = m.unfetched, nil, 0
	return waiting, m.at, m.dropped
}

// settled is the place up to which nothing waits to be fetched; the given one, if something does.
func (m *member) settled(fetched place) place {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.unfetched) > 0 {
		return fetched
	}
	return m.at
}
