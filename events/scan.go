package events

import (
	"context"
	"fmt"
	"math"

	"github.com/redis/go-redis/v9"
)

// What one look at the stream may cost: entries looked at, bytes kept.
const (
	maxScanned   = 5000
	maxPageBytes = 8 << 20
)

// scanner reads entries of the stream in order, each time as many as are wanted and not too many bytes of them.
type scanner struct {
	client      *Client
	first, last place // of the range that is left, both included
	newestFirst bool
	pace        pace
}

// read returns the next entries; none, when the range has no more.
func (s *scanner) read(ctx context.Context, atMost int) ([]redis.XMessage, error) {
	if s.ended() {
		return nil, nil
	}
	count := s.pace.count(atMost)
	stream := s.client.keys.stream
	var found []redis.XMessage
	var err error
	if s.newestFirst {
		found, err = s.client.rdb.XRevRangeN(ctx, stream, s.last.String(), s.first.String(), int64(count)).Result()
	} else {
		found, err = s.client.rdb.XRangeN(ctx, stream, s.first.String(), s.last.String(), int64(count)).Result()
	}
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	s.pace.saw(found)
	if len(found) < count {
		s.end()
		return found, nil
	}
	at, err := parsePlace(found[len(found)-1].ID)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	s.passed(at)
	return found, nil
}

// passed takes what is up to a place out of the range.
func (s *scanner) passed(at place) {
	switch {
	case s.newestFirst && at == place{}, !s.newestFirst && at == lastPlace:
		s.end()
	case s.newestFirst:
		s.last = at.previous()
	default:
		s.first = at.next()
	}
}

func (s *scanner) ended() bool { return s.last.before(s.first) }

func (s *scanner) end() { s.first, s.last = lastPlace, place{} }

var lastPlace = place{ms: math.MaxUint64, seq: math.MaxUint64}

func (p place) next() place {
	if p.seq == math.MaxUint64 {
		return place{ms: p.ms + 1}
	}
	return place{ms: p.ms, seq: p.seq + 1}
}

func (p place) previous() place {
	if p.seq == 0 {
		return place{ms: p.ms - 1, seq: math.MaxUint64}
	}
	return place{ms: p.ms, seq: p.seq - 1}
}

// pace keeps an answer of Redis near a number of bytes, whatever the events' size: events may have a megabyte each.
type pace struct{ average int }

const (
	paceBytes  = 1 << 20
	paceFirst  = 50
	paceCounts = 500
)

func (p *pace) count(atMost int) int {
	n := paceFirst
	if p.average > 0 {
		n = min(max(paceBytes/p.average, 1), paceCounts)
	}
	return max(min(n, atMost), 1)
}

func (p *pace) saw(found []redis.XMessage) {
	if len(found) == 0 {
		return
	}
	total := 0
	for _, m := range found {
		total += size(m)
	}
	p.average = max(total/len(found), 1)
}

func size(m redis.XMessage) int {
	text, _ := m.Values[fieldEvent].(string)
	return len(text) + 100
}
