package events

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

func everything(t testing.TB, c *Client, q Query) []*Event {
	t.Helper()
	var list []*Event
	for {
		entries, next, err := c.List(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			list = append(list, e.Event)
		}
		if q.Cursor = next; next == "" {
			return list
		}
	}
}

func TestReplayPublishesCopies(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{})
		typed(t, c, "a.x /s /1", "b.x /s /2", "a.y /other /3")
		original := everything(t, c, Query{})
		p, err := c.Replay(t.Context(), ReplayRequest{ID: "r1", Type: "a.*", Trigger: "g:t"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if p.Published != 2 || p.LookedAt != 3 || !p.Done || p.Duplicates+p.Refused != 0 || p.Trimmed {
			t.Errorf("progress is %+v", p)
		}
		copies := everything(t, c, Query{})[3:]
		for i, from := range []*Event{original[0], original[2]} {
			got := *copies[i]
			if got.ID == from.ID || got.ReplayedFor() != "g:t" {
				t.Errorf("the copy has id %s, and is for %q", got.ID, got.ReplayedFor())
			}
			want := *from
			want.ID = got.ID
			want.Extensions = map[string]any{"replayof": from.ID, "replayid": "r1", "replaytrigger": "g:t"}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("copy %d (-want +got):\n%s", i, diff)
			}
		}
		// Done is done; another replay passes over the copies, unless they are asked for.
		if p, err = c.Replay(t.Context(), ReplayRequest{ID: "r1", Type: "a.*", Trigger: "g:t", Rate: 5}, nil); err != nil || p.Published != 2 || !p.Done {
			t.Errorf("again: %+v, %v", p, err)
		}
		if p, err = c.Replay(t.Context(), ReplayRequest{ID: "r2"}, nil); err != nil || p.Published != 3 || p.LookedAt != 5 {
			t.Errorf("another one: %+v, %v", p, err)
		}
		if p, err = c.Replay(t.Context(), ReplayRequest{ID: "r3", Copies: true}, nil); err != nil || p.Published != 8 {
			t.Errorf("with copies: %+v, %v", p, err)
		}
		for _, e := range everything(t, c, Query{})[8:] {
			if e.ReplayedFor() != "" {
				t.Errorf("a copy of a copy for one trigger is still for %q", e.ReplayedFor())
			}
		}
		if n := len(everything(t, c, Query{})); n != 16 {
			t.Errorf("%d events on the stream, want 3+2+3+8", n)
		}
	})
}

func TestReplayChooses(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	c := newClient(t, rdb, Config{})
	ids := typed(t, c, "a /s /1", "a /o /1", "b /s /2")
	second, err := parsePlace(ids[2])
	if err != nil {
		t.Fatal(err)
	}
	end := time.UnixMilli(int64(second.ms) + 1)
	for i, test := range []struct {
		r    ReplayRequest
		want int64
	}{
		{ReplayRequest{}, 3},
		{ReplayRequest{Source: "/o"}, 1},
		{ReplayRequest{Subject: "/1"}, 2},
		{ReplayRequest{StreamID: ids[1]}, 1},
		{ReplayRequest{StreamID: ids[1], Type: "b"}, 0},
		{ReplayRequest{From: end}, 0},
		{ReplayRequest{Until: end, Type: "b"}, 1},
		{ReplayRequest{Until: end.Add(-time.Hour)}, 0},
	} {
		test.r.ID = fmt.Sprint("r", i)
		test.r.Until = untilOr(test.r, end)
		if p, err := c.Replay(t.Context(), test.r, nil); err != nil || p.Published != test.want || !p.Done {
			t.Errorf("%+v: %+v, %v, want %d published", test.r, p, err, test.want)
		}
	}
}

// untilOr keeps the copies of one request out of the next one's range.
func untilOr(r ReplayRequest, end time.Time) time.Time {
	if r.Until.IsZero() && r.StreamID == "" && r.From.IsZero() {
		return end
	}
	return r.Until
}

// A replay that was cut goes on where it was, ends where it would have, and publishes nothing twice.
func TestReplayGoesOn(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	c := newClient(t, rdb, Config{})
	publish(t, c, names("e", 1200)...)
	r := ReplayRequest{ID: "cut"}
	ctx, cut := context.WithCancel(t.Context())
	p, err := c.Replay(ctx, r, func(p ReplayProgress) {
		if p.Published >= 300 {
			cut()
		}
	})
	if !errors.Is(err, context.Canceled) || p.Done {
		t.Fatalf("got %+v, %v", p, err)
	}
	kept, err := c.ReplayProgress(t.Context(), "cut")
	if err != nil || kept.Published < 300 || kept.Done || kept.At == "" {
		t.Errorf("kept is %+v, %v", kept, err)
	}
	// What was published last may not have been noted: as after a crash.
	lost := strings.Replace(rdb.Get(t.Context(), c.keys.replay+"cut").Val(), `"at":"`+kept.At, `"at":"0-0`, 1)
	if err := rdb.Set(t.Context(), c.keys.replay+"cut", lost, time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	publish(t, c, names("later", 50)...)
	p, err = c.Replay(t.Context(), r, nil)
	// One step more than was noted may have been stored: it was under way when the end came.
	more := p.Duplicates - kept.Published
	if err != nil || !p.Done || more < 0 || more > 100 || p.Published+more != 1200 {
		t.Errorf("got %+v, %v, want 1200 published, %d of them noticed again", p, err, kept.Published)
	}
	copied := make(map[string]int)
	for _, e := range everything(t, c, Query{Limit: 1000}) {
		if of, ok := e.Extensions[ExtensionReplayOf].(string); ok {
			copied[of]++
		}
	}
	for _, id := range names("e", 1200) {
		if copied[id] != 1 {
			t.Fatalf("%s was copied %d times", id, copied[id])
		}
	}
	if len(copied) != 1200 {
		t.Errorf("%d events were copied", len(copied))
	}
}

func TestReplayKeepsTheRate(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	c := newClient(t, rdb, Config{})
	publish(t, c, names("e", 30)...)
	began := time.Now()
	steps := 0
	if _, err := c.Replay(t.Context(), ReplayRequest{ID: "r", Rate: 60}, func(ReplayProgress) { steps++ }); err != nil {
		t.Fatal(err)
	}
	// Five steps of six; the first waits for nothing.
	if took := time.Since(began); took < 400*time.Millisecond || steps < 5 {
		t.Errorf("30 events at 60 a second took %v in %d steps", took, steps)
	}
}

func TestReplayTellsWhatItCouldNotCopy(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	c := newClient(t, rdb, Config{MaxEventBytes: 2000})
	e := newEvent(t, "big")
	e.Data = []byte(`"` + strings.Repeat("x", 1800) + `"`)
	if _, err := c.Publish(t.Context(), e, newEvent(t, "small")); err != nil {
		t.Fatal(err)
	}
	p, err := c.Replay(t.Context(), ReplayRequest{ID: "r"}, nil)
	if err != nil || p.Published != 1 || p.Refused != 1 || !strings.Contains(p.Refusal, "too large") {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestReplayIntoAFullStream(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	c := newClient(t, rdb, Config{MaxEvents: 10})
	publish(t, c, names("e", 8)...)
	p, err := c.Replay(t.Context(), ReplayRequest{ID: "r"}, nil)
	if !errors.Is(err, ErrFull) || p.Done {
		t.Fatalf("got %+v, %v, want ErrFull", p, err)
	}
	roomy := newClient(t, rdb, Config{})
	if p, err = roomy.Replay(t.Context(), ReplayRequest{ID: "r"}, nil); err != nil || p.Published+p.Duplicates != 8 || len(everything(t, c, Query{})) != 16 {
		t.Errorf("with room: %+v, %v", p, err)
	}
}

func TestReplayRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	c := newClient(t, rdb, Config{})
	ids := typed(t, c, "a")
	now := time.Now()
	for want, r := range map[string]ReplayRequest{
		"id: is missing": {},
		"type: event":    {ID: "r", Type: "**.a"},
		"until: ":        {ID: "r", From: now, Until: now},
		"stream_id: \"x": {ID: "r", StreamID: "x"},
		"names one event": {
			ID: "r", StreamID: ids[0], From: now,
		},
		"rate: is -1":         {ID: "r", Rate: -1},
		"trigger: has 300":    {ID: "r", Trigger: strings.Repeat("x", 300)},
		"id: has the charact": {ID: "a\nb"},
	} {
		if _, err := c.Replay(t.Context(), r, nil); !errors.Is(err, ErrReplay) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want an ErrReplay with %q", r, err, want)
		}
	}
	if _, err := c.Replay(t.Context(), ReplayRequest{ID: "r", StreamID: "5-5"}, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("an event that isn't there: %v", err)
	}
	if _, err := c.ReplayProgress(t.Context(), "none"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a replay that never was: %v", err)
	}
	if _, err := c.Replay(t.Context(), ReplayRequest{ID: "r", Type: "a"}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Replay(t.Context(), ReplayRequest{ID: "r", Type: "b"}, nil); !errors.Is(err, ErrReplay) {
		t.Errorf("an id used for something else: %v", err)
	}
}
