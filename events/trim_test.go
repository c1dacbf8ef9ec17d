package events

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

// take delivers n events to a consumer of the group and acknowledges those before ack.
func take(t *testing.T, c *Client, group string, n, ack int) {
	t.Helper()
	ctx := t.Context()
	if err := ignoreBusyGroup(c.rdb.XGroupCreateMkStream(ctx, c.keys.stream, group, "0").Err()); err != nil {
		t.Fatal(err)
	}
	if n == 0 {
		return
	}
	got, err := c.rdb.XReadGroup(ctx, &redis.XReadGroupArgs{
		Group: group, Consumer: "x", Streams: []string{c.keys.stream, ">"}, Count: int64(n), Block: -1,
	}).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range got[0].Messages[:ack] {
		if err := c.rdb.XAck(ctx, c.keys.stream, group, m.ID).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

func trim(t *testing.T, c *Client) Trimmed {
	t.Helper()
	trimmed, err := c.Trim(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return trimmed
}

func TestTrimNeverPassesTheSlowestGroup(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{Retention: time.Nanosecond})
		if got := trim(t, c); got.FirstID != "0-0" {
			t.Errorf("no stream yet: %+v", got)
		}
		places := publish(t, c, names("e", 10)...)
		if got := trim(t, c); got.Removed != 0 || got.FirstID != places[0] {
			t.Errorf("no group yet, nobody has seen anything: %+v", got)
		}
		take(t, c, "fast", 10, 10)
		take(t, c, "slow", 0, 0)
		if got := trim(t, c); got.Removed != 0 {
			t.Errorf("slow has read nothing: %+v", got)
		}
		take(t, c, "slow", 5, 3)
		eventually(t, "three are trimmed", func() bool { return trim(t, c).FirstID == places[3] }) // retention has millisecond steps
		if err := c.RemoveGroup(t.Context(), "slow"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "all are trimmed", func() bool { return trim(t, c).Length == 0 })
		if got := trim(t, c); !isAfter(got.FirstID, places[9]) {
			t.Errorf("empty stream: first id is %s, want one after %s", got.FirstID, places[9])
		}
		if err := c.RemoveGroup(t.Context(), "slow"); !errors.Is(err, ErrNotFound) {
			t.Errorf("removing a group twice: %v", err)
		}
	})
}

func isAfter(a, b string) bool {
	pa, err1 := placeOf(a + "/x")
	pb, err2 := placeOf(b + "/x")
	return err1 == nil && err2 == nil && pa > pb
}

func TestTrimKeepsForTheRetention(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{Retention: time.Hour})
		old := time.Now().Add(-2 * time.Hour).UnixMilli()
		for i, at := range []int64{old, old + 1, old + 2} {
			e := newEvent(t, names("old", 3)[i])
			if err := rdb.XAdd(t.Context(), &redis.XAddArgs{
				Stream: c.keys.stream, ID: formatID(at), Values: []any{fieldEvent, e.AppendJSON(nil)},
			}).Err(); err != nil {
				t.Fatal(err)
			}
		}
		places := publish(t, c, "new")
		take(t, c, "g", 4, 4)
		if got := trim(t, c); got.Removed != 3 || got.FirstID != places[0] || got.Length != 1 {
			t.Errorf("got %+v, want the three old ones removed", got)
		}
	})
}

func formatID(ms int64) string { return strconv.FormatInt(ms, 10) + "-0" }

func TestFullStreamRefuses(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{MaxEvents: 10})
		ids := names("e", 12)
		places := publish(t, c, ids[:10]...)
		outcomes, err := c.Publish(t.Context(), newEvent(t, ids[10]), newEvent(t, ids[0]))
		if !errors.Is(err, ErrFull) || !errors.Is(outcomes[0].Err, ErrFull) {
			t.Errorf("the stream is full and nobody has seen it, but: %+v, %v", outcomes, err)
		}
		if !outcomes[1].Duplicate || outcomes[1].StreamID != places[0] {
			t.Errorf("a duplicate needs no room: %+v", outcomes[1])
		}
		take(t, c, "fast", 10, 10)
		take(t, c, "slow", 10, 0)
		if _, err := c.PublishOne(t.Context(), newEvent(t, ids[10])); !errors.Is(err, ErrFull) {
			t.Errorf("slow awaits all ten, but: %v", err)
		}
		if err := rdb.XAck(t.Context(), c.keys.stream, "slow", places[0], places[2]).Err(); err != nil {
			t.Fatal(err)
		}
		if _, err := c.PublishOne(t.Context(), newEvent(t, ids[10])); err != nil {
			t.Errorf("the first was acknowledged by all, there is room for one: %v", err)
		}
		if _, err := c.PublishOne(t.Context(), newEvent(t, ids[11])); !errors.Is(err, ErrFull) {
			t.Errorf("slow awaits the second, but: %v", err)
		}
		entries, _, err := c.Range(t.Context(), "", 100)
		if err != nil || len(entries) != 10 || entries[0].StreamID != places[1] {
			t.Errorf("stream has %d events from %s on, want 10 from %s (%v)", len(entries), entries[0].StreamID, places[1], err)
		}
	})
}

// A cap of one event works too, and many acknowledged ones make room a tenth at a time, oldest first.
func TestFullStreamMakesRoomWithAcknowledged(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		one := newClient(t, rdb, Config{Prefix: "one:{e}:", MaxEvents: 1})
		publish(t, one, "a")
		take(t, one, "g", 1, 1)
		publish(t, one, "b")

		c := newClient(t, rdb, Config{MaxEvents: 1000})
		places := publish(t, c, names("e", 1000)...)
		take(t, c, "g", 1000, 1000)
		publish(t, c, "more")
		stats, err := c.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if stats.Length > 901 || stats.NewestID == places[999] {
			t.Errorf("made no room: %+v", stats)
		}
		if !strings.HasSuffix(t.Name(), "/embedded") && stats.Length < 801 { // embedded has no LIMIT: it may remove all
			t.Errorf("removed far more than it had to: %d events are left", stats.Length)
		}
	})
}

func TestConsumerTrims(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{Retention: time.Millisecond})
		var seen recorder
		firsts := make(chan string, 1000)
		consumer, err := c.NewConsumer("g", seen.handle, ConsumerOptions{
			OnTrim: func(_ context.Context, first string) { firsts <- first },
			Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		consumer.trimEvery = 10 * time.Millisecond
		places := publish(t, c, names("e", 5)...)
		r := start(t, consumer)
		eventually(t, "OnTrim heard that all are gone", func() bool {
			select {
			case first := <-firsts:
				return isAfter(first, places[4])
			default:
				return false
			}
		})
		if seen.count() != 5 {
			t.Errorf("%d events were handled before they were trimmed, want 5", seen.count())
		}
		r.stop(t)
	})
}
