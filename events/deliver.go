package events

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed set_aside.lua
var setAsideSource string

var setAsideScript = redis.NewScript(setAsideSource)

// maxUndecodable is how many entries that don't decode are kept, for people to look at.
const maxUndecodable = 1000

// The waits before an event that failed is handed to the handler again.
const (
	minRetry = 100 * time.Millisecond
	maxRetry = 30 * time.Second
)

// settleFor bounds the writes that must reach Redis though the caller is leaving: outcomes of work that was done.
const settleFor = 2 * time.Second

// deliver hands the items to the handler, batch by batch, and settles each. What it doesn't come to because ctx ended
// stays held, and is released on the way out.
func (s *session) deliver(ctx context.Context, items []*item) {
	items = s.setJunkAside(ctx, items)
	for batch := range slices.Chunk(items, s.client.cfg.Batch) {
		if ctx.Err() != nil {
			return
		}
		outcomes := s.call(ctx, batch)
		var done []*item
		for i, it := range batch {
			if outcomes[i] == nil {
				done = append(done, it)
			} else {
				s.retryLater(it, outcomes[i])
			}
		}
		s.acknowledge(ctx, done)
	}
}

// call runs the handler, and makes one outcome for each item out of whatever happens.
func (s *session) call(ctx context.Context, batch []*item) (outcomes []error) {
	deliveries := make([]Delivery, len(batch))
	s.mu.Lock()
	for i, it := range batch {
		it.seen = true
		deliveries[i] = Delivery{StreamID: it.id, Event: it.event, Attempt: it.attempt}
	}
	s.mu.Unlock()
	defer func() {
		if p := recover(); p != nil {
			outcomes = all(len(batch), fmt.Errorf("handler panicked: %v\n%s", p, debug.Stack()))
		}
	}()
	outcomes = s.handler(ctx, deliveries)
	if outcomes == nil {
		return all(len(batch), nil)
	}
	if len(outcomes) != len(batch) {
		return all(len(batch), fmt.Errorf("handler returned %d outcomes for %d events", len(outcomes), len(batch)))
	}
	return outcomes
}

func all(n int, err error) []error {
	outcomes := make([]error, n)
	for i := range outcomes {
		outcomes[i] = err
	}
	return outcomes
}

// acknowledge settles the done items, and those that Redis didn't take before.
func (s *session) acknowledge(ctx context.Context, done []*item) {
	s.unacked = append(s.unacked, done...)
	if len(s.unacked) == 0 {
		return
	}
	// The handler is done with them: that must be written though ctx may have ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleFor)
	defer cancel()
	ids := make([]string, len(s.unacked))
	for i, it := range s.unacked {
		ids[i] = it.id
	}
	err := s.client.rdb.XAck(ctx, s.client.keys.stream, s.group, ids...).Err()
	if s.outage.note("acknowledge events", err) != nil {
		s.ackTry++
		s.ackAt = time.Now().Add(backoff(s.ackTry, minWait, maxWait))
		return
	}
	s.drop(s.unacked...)
	s.unacked, s.ackTry = nil, 0
}

func (s *session) retryLater(it *item, cause error) {
	wait := backoff(it.attempt, minRetry, maxRetry)
	it.due = time.Now().Add(wait)
	s.retries = append(s.retries, it)
	if cause == nil || it.attempt&(it.attempt-1) != 0 {
		return // told at the attempts 1, 2, 4, 8 ...
	}
	s.log.Warn("events: event failed, it stays pending and comes again",
		"stream_id", it.id, "attempt", it.attempt, "in", wait.Round(time.Millisecond), "err", cause)
}

// retry hands out again what failed and is due, if it is still this consumer's.
func (s *session) retry(ctx context.Context) {
	now := time.Now()
	var due, later []*item
	for _, it := range s.retries {
		if it.due.After(now) {
			later = append(later, it)
		} else {
			due = append(due, it)
		}
	}
	if len(due) == 0 {
		return
	}
	counts, err := s.renew(ctx, due, true)
	if err != nil {
		for _, it := range due {
			it.due = now.Add(backoff(3, minWait, maxWait))
		}
		return
	}
	s.retries = later
	mine := due[:0:0]
	for i, it := range due {
		if counts[i] == 0 {
			s.drop(it) // claimed by another consumer while this one was silent
			continue
		}
		it.attempt = counts[i]
		mine = append(mine, it)
	}
	s.deliver(ctx, mine)
}

// setJunkAside moves what is no event out of the way, and returns the events.
func (s *session) setJunkAside(ctx context.Context, items []*item) []*item {
	events := items[:0:0]
	for _, it := range items {
		if it.fault == nil {
			events = append(events, it)
			continue
		}
		if err := s.setAside(ctx, it); err != nil {
			s.retryLater(it, nil)
			continue
		}
		s.drop(it)
	}
	return events
}

func (s *session) setAside(ctx context.Context, it *item) error {
	fields, err := json.Marshal(it.fields)
	if err != nil {
		fields = []byte(`{}`) // strings all of them: encoding/json refuses none
	}
	k := s.client.keys
	moved, err := setAsideScript.Run(ctx, s.client.rdb, []string{k.stream, k.junk, k.junkTotal},
		s.group, it.id, maxUndecodable, it.fault.Error(), fields).Int()
	if s.outage.note("set an undecodable entry aside", err) == nil && moved == 1 {
		s.log.Error("events: an entry of the stream is no event; it was set aside, find out who wrote it",
			"stream_id", it.id, "moved_to", k.junk, "err", it.fault)
	}
	return err
}
