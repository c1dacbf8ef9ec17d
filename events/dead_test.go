package events

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

func TestDeadMatches(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{MaxDead: 5})
		ctx := t.Context()
		e := newEvent(t, "a")
		var want []string
		for i, streamID := range []string{"9-0", "10-0", "10-2", "10-11", "200-0"} {
			m := DeadMatch{StreamID: streamID, Trigger: "triage/inbox", Error: fmt.Sprint("first ", i), Event: e}
			if err := c.AddDeadMatch(ctx, m); err != nil {
				t.Fatal(err)
			}
			m.Error = "again"
			if err := c.AddDeadMatch(ctx, m, m); err != nil { // a redelivery
				t.Fatal(err)
			}
			want = append([]string{streamID + "/triage/inbox"}, want...)
		}
		if err := c.AddDeadMatch(ctx, DeadMatch{StreamID: "300-0", Trigger: "t", Event: e}); !errors.Is(err, ErrTooManyDead) {
			t.Errorf("the sixth of five: %v", err)
		}
		var got []string
		for cursor := ""; ; {
			page, next, err := c.DeadMatches(ctx, cursor, 2)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range page {
				got = append(got, m.ID)
			}
			if cursor = next; cursor == "" {
				break
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		m, err := c.GetDeadMatch(ctx, "10-2/triage/inbox")
		if err != nil {
			t.Fatal(err)
		}
		if m.Error != "first 2" || m.At.IsZero() || m.Trigger != "triage/inbox" || m.StreamID != "10-2" || m.Event.ID != "a" || string(m.Event.Data) != string(e.Data) {
			t.Errorf("got %+v", m)
		}
		if err := c.RemoveDeadMatch(ctx, m.ID); err != nil {
			t.Error(err)
		}
		if err := c.RemoveDeadMatch(ctx, m.ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("removing it twice: %v", err)
		}
		if _, err := c.GetDeadMatch(ctx, m.ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("reading it after that: %v", err)
		}
		stats, err := c.Stats(ctx)
		if err != nil || stats.Dead != 4 {
			t.Errorf("%d dead matches are counted, want 4 (%v)", stats.Dead, err)
		}
	})
}

func TestDeadMatchRefusesNonsense(t *testing.T) {
	t.Parallel()
	c := newClient(t, redistest.New(t), Config{})
	ctx := t.Context()
	e := newEvent(t, "a")
	for _, m := range []DeadMatch{
		{StreamID: "1-0", Event: e},
		{StreamID: "1-0", Trigger: "t"},
		{StreamID: "nonsense", Trigger: "t", Event: e},
	} {
		if err := c.AddDeadMatch(ctx, m); err == nil {
			t.Errorf("accepted %+v", m)
		}
	}
	if _, _, err := c.DeadMatches(ctx, "nonsense", 1); err == nil {
		t.Error("accepted a nonsense cursor")
	}
	if _, err := c.Get(ctx, "5-0"); !errors.Is(err, ErrNotFound) {
		t.Errorf("an event that never was: %v", err)
	}
}
