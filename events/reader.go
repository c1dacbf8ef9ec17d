package events

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// A blocked read is renewed this often. Redis wakes it for each event; the limit finds connections that died silently.
const blockFor = 5 * time.Second

// read is what one blocking read brought.
type read struct {
	items []*item
	rung  bool // another consumer left something to claim
}

// readOnDemand reads a batch each time it is asked to, and never ahead: a batch behind a busy handler would be withheld
// from idle consumers.
func (s *session) readOnDemand(ctx context.Context) {
	for range s.ask {
		s.reads <- s.readBatch(ctx)
	}
}

func (s *session) readBatch(ctx context.Context) read {
	for try := 1; ; {
		select {
		case <-s.stopping:
			return read{}
		default:
		}
		got, err := s.readOnce(ctx)
		if errors.Is(err, redis.Nil) {
			err = nil // the block ran out
		}
		if isNoGroup(err) {
			s.log.Warn("events: the group is gone (was Redis flushed?), making it anew")
			err = s.createGroups(ctx)
		}
		if s.outage.note("read events", err) == nil {
			if try > 1 {
				s.waitBeforeClaiming()
			}
			try = 1
			if len(got.items) > 0 || got.rung {
				return got
			}
			continue
		}
		sleep(s.stopping, backoff(try, minWait, maxWait))
		try++
	}
}

// readOnce blocks until Redis has an event for this consumer or rings its bell. The bell is how a blocked read is ended:
// the client doesn't end it with its context, and closing the connection under it leaves events to be delivered to
// nobody, until they are claimed.
func (s *session) readOnce(ctx context.Context) (read, error) {
	streams, err := s.client.rdb.XReadGroup(ctx, &redis.XReadGroupArgs{
		Group: s.group, Consumer: s.name,
		Streams: []string{s.client.keys.stream, s.bell, ">", ">"},
		Count:   int64(s.client.cfg.Batch), Block: blockFor,
	}).Result()
	if err != nil {
		return read{}, err
	}
	var got read
	for _, stream := range streams {
		if stream.Stream == s.bell {
			got.rung = true
			s.answerBell(ctx, stream.Messages)
			continue
		}
		for _, m := range stream.Messages {
			got.items = append(got.items, newItem(m.ID, m.Values, 1))
		}
	}
	s.hold(got.items...)
	return got, nil
}

func (s *session) answerBell(ctx context.Context, rings []redis.XMessage) {
	ids := make([]string, len(rings))
	for i, m := range rings {
		ids[i] = m.ID
	}
	// The bell has no other reader and dies with this consumer: a lost acknowledgement harms nothing.
	_ = s.client.rdb.XAck(ctx, s.bell, s.group, ids...).Err()
}

func newItem(id string, fields map[string]any, attempt int) *item {
	it := &item{id: id, attempt: attempt}
	it.event, it.fault = decodeEntry(fields)
	if it.fault != nil {
		it.fields = fields
	}
	return it
}

func decodeEntry(fields map[string]any) (*Event, error) {
	text, ok := fields[fieldEvent].(string)
	if !ok {
		return nil, fmt.Errorf("%w: the entry has no field %q", ErrInvalid, fieldEvent)
	}
	return Decode([]byte(text))
}

// stopReading ends the blocked read and keeps what it brought. When Redis doesn't answer, the read is given up: it ends
// by itself within its block, and what it might still be given is claimed by others.
func (s *session) stopReading(ctx context.Context) {
	close(s.stopping)
	close(s.ask)
	if !s.reading {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	s.ring(ctx, s.bell, true) // made if a flush took it: the blocked read then ends with NOGROUP
	select {
	case <-s.reads: // its items are held, leave releases them
	case <-ctx.Done():
	}
}

// ring wakes the consumer of the bell, if it has one or one may be made.
func (s *session) ring(ctx context.Context, bell string, mayMake bool) {
	err := s.client.rdb.XAdd(ctx, &redis.XAddArgs{
		Stream: bell, NoMkStream: !mayMake, MaxLen: 1, Values: []string{"ring", "1"},
	}).Err()
	if errors.Is(err, redis.Nil) {
		err = nil // that consumer is gone
	}
	_ = s.outage.note("wake a consumer", err)
}
