package events

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

func TestPublishStoresEachEventOnce(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{})
		first := publish(t, c, "a", "b")
		outcomes, err := c.Publish(t.Context(), newEvent(t, "b"), newEvent(t, "c"), newEvent(t, "c"), newEvent(t, "a"))
		if err != nil {
			t.Fatal(err)
		}
		if !outcomes[0].Duplicate || outcomes[0].StreamID != first[1] {
			t.Errorf("b again: %+v, want the first one's place %s", outcomes[0], first[1])
		}
		if outcomes[1].Duplicate || !outcomes[2].Duplicate || outcomes[1].StreamID != outcomes[2].StreamID {
			t.Errorf("c twice in one call: %+v %+v", outcomes[1], outcomes[2])
		}
		if !outcomes[3].Duplicate || outcomes[3].StreamID != first[0] {
			t.Errorf("a again: %+v", outcomes[3])
		}
		stats, err := c.Stats(t.Context())
		if err != nil || stats.Length != 3 {
			t.Errorf("stream has %d events, want 3 (error %v)", stats.Length, err)
		}
		got, err := c.Get(t.Context(), first[0])
		if err != nil || got.ID != "a" {
			t.Errorf("Get returned %+v, %v", got, err)
		}
	})
}

// A request that go-redis sends again, because the reply was lost, gets the first answer: stored, not duplicate.
func TestPublishResentGetsTheFirstAnswer(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{})
		p, _ := c.pack(t.Context(), "token", []*Event{newEvent(t, "a")}, 0, nil)
		c.send([]*parcel{p})
		first := p.items[0].answer
		c.send([]*parcel{p})
		if again := p.items[0].answer; first.Err != nil || first.Duplicate || again != first {
			t.Errorf("first answer %+v, resent %+v", first, again)
		}
	})
}

func TestPublishRemembersForTheWindow(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	c := newClient(t, rdb, Config{DedupeWindow: 7 * time.Minute})
	publish(t, c, "a")
	key := c.keys.seen + dedupeHash("/test", "a")
	if ttl := rdb.PTTL(t.Context(), key).Val(); ttl <= 6*time.Minute || ttl > 7*time.Minute {
		t.Errorf("remembered for %v, want 7m", ttl)
	}
	if dedupeHash("a", "bc") == dedupeHash("ab", "c") || dedupeHash("1:a", "b") == dedupeHash("1", ":ab") {
		t.Error("two events have one dedupe key")
	}
}

func TestPublishAnswersForEachEvent(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{MaxEventBytes: 2000})
		bad := newEvent(t, "bad")
		bad.Type = ""
		big := newEvent(t, "big")
		big.Data = []byte(`"` + strings.Repeat("x", 2000) + `"`)
		outcomes, err := c.Publish(t.Context(), bad, newEvent(t, "good"), nil, big)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "3 of 4") {
			t.Errorf("error is %v", err)
		}
		if !errors.Is(outcomes[0].Err, ErrInvalid) || outcomes[1].Err != nil || outcomes[1].StreamID == "" ||
			!errors.Is(outcomes[2].Err, ErrInvalid) || !errors.Is(outcomes[3].Err, ErrTooLarge) {
			t.Errorf("outcomes are %+v", outcomes)
		}
	})
}

func TestPublishManyKeepsOrder(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{})
		ids := names("e", 2*publishChunkEvents+7)
		places := publish(t, c, ids...)
		i := 0
		for from := ""; ; {
			entries, next, err := c.Range(t.Context(), from, 300)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if e.Err != nil || e.Event.ID != ids[i] || e.StreamID != places[i] {
					t.Fatalf("entry %d is %s at %s, want %s at %s (%v)", i, e.Event.ID, e.StreamID, ids[i], places[i], e.Err)
				}
				i++
			}
			if from = next; from == "" {
				break
			}
		}
		if i != len(ids) {
			t.Errorf("read %d events, want %d", i, len(ids))
		}
		recent, next, err := c.Recent(t.Context(), "", 2)
		if err != nil || len(recent) != 2 || recent[0].StreamID != places[len(places)-1] || next != places[len(places)-3] {
			t.Errorf("Recent returned %+v, next %q, %v", recent, next, err)
		}
	})
}

func TestPublishTellsThatRedisIsGone(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := newClient(t, server.Client(), Config{})
	publish(t, c, "a")
	server.Kill()
	outcomes, err := c.Publish(t.Context(), newEvent(t, "b"), newEvent(t, "c"))
	if err == nil || outcomes[0].Err == nil || outcomes[1].Err == nil {
		t.Errorf("published into nothing: %+v, %v", outcomes, err)
	}
}
