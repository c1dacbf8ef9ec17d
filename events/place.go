package events

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// place is an event's place on the stream: the Redis time at which it was stored in milliseconds, and a number among those of that
// millisecond.
type place struct{ ms, seq uint64 }

func parsePlace(streamID string) (place, error) {
	ms, seq, dashed := strings.Cut(streamID, "-")
	if !dashed || !isNumber(ms) || !isNumber(seq) {
		return place{}, fmt.Errorf("%.60q is no place on the stream, like 1700000000000-0", streamID)
	}
	var p place
	var err error
	if p.ms, err = strconv.ParseUint(ms, 10, 64); err == nil {
		p.seq, err = strconv.ParseUint(seq, 10, 64)
	}
	if err != nil {
		return place{}, fmt.Errorf("%.60q is no place on the stream: %w", streamID, err)
	}
	return p, nil
}

func (p place) String() string {
	return strconv.FormatUint(p.ms, 10) + "-" + strconv.FormatUint(p.seq, 10)
}

func (p place) before(q place) bool { return p.ms < q.ms || p.ms == q.ms && p.seq < q.seq }

// before reports whether the first place is before the second. What is no place is before none.
func before(a, b string) bool {
	p, errA := parsePlace(a)
	q, errB := parsePlace(b)
	return errA == nil && errB == nil && p.before(q)
}

// firstAt is the first place that an event stored at t or later can have.
func firstAt(t time.Time) place {
	ms := t.UnixMilli()
	if t.Nanosecond()%int(time.Millisecond) != 0 {
		ms++
	}
	return place{ms: uint64(max(ms, 0))}
}

// lastBefore is the last place that an event stored before t can have.
func lastBefore(t time.Time) place {
	first := firstAt(t)
	if first.ms == 0 {
		return place{}
	}
	return place{ms: first.ms - 1, seq: math.MaxUint64}
}
