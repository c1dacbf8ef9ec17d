package events

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

// typed stores an event of each type, "type source subject", and returns the stream ids.
func typed(t testing.TB, c *Client, lines ...string) []string {
	t.Helper()
	batch := make([]*Event, len(lines))
	for i, line := range lines {
		parts := append(strings.Fields(line), "/s", "")
		e, err := New(parts[0], parts[1], map[string]int{"n": i}, Subject(parts[2]))
		if err != nil {
			t.Fatal(err)
		}
		batch[i] = e
	}
	out, err := c.Publish(t.Context(), batch...)
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]string, len(out))
	for i, o := range out {
		ids[i] = o.StreamID
	}
	return ids
}

// pages lists all that a query finds, page by page, and how long each page was.
func pages(t testing.TB, c *Client, q Query) (ids []string, lengths []int) {
	t.Helper()
	for {
		entries, next, err := c.List(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			ids = append(ids, e.StreamID)
		}
		lengths = append(lengths, len(entries))
		if next == "" {
			return ids, lengths
		}
		q.Cursor = next
	}
}

func TestListFilters(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{})
		ids := typed(t, c, "a.one /x /7", "a.two /x /8", "b.one /y /7", "a.one /y /8", "a.one.more /x /7")
		for name, test := range map[string]struct {
			q    Query
			want []int
		}{
			"all":          {Query{}, []int{0, 1, 2, 3, 4}},
			"newest first": {Query{NewestFirst: true}, []int{4, 3, 2, 1, 0}},
			"type":         {Query{Type: "a.*"}, []int{0, 1, 3}},
			"rest":         {Query{Type: "a.**", NewestFirst: true}, []int{4, 3, 1, 0}},
			"source":       {Query{Source: "/x"}, []int{0, 1, 4}},
			"subject":      {Query{Subject: "/7"}, []int{0, 2, 4}},
			"together":     {Query{Type: "a.one", Source: "/y", Subject: "/8"}, []int{3}},
			"none":         {Query{Type: "c"}, nil},
		} {
			var want []string
			for _, i := range test.want {
				want = append(want, ids[i])
			}
			for _, limit := range []int{0, 1, 2, 5} {
				test.q.Limit = limit
				got, lengths := pages(t, c, test.q)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s, limit %d (-want +got):\n%s", name, limit, diff)
				}
				if limit > 0 && slices.Max(lengths) > limit {
					t.Errorf("%s: pages of %v, limit %d", name, lengths, limit)
				}
			}
		}
	})
}

func TestListByTime(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{})
		// Entries of known times, two of them in one millisecond.
		places := []string{"1000-0", "2000-0", "2000-1", "3000-0"}
		for i, id := range places {
			err := rdb.XAdd(t.Context(), &redis.XAddArgs{
				Stream: c.keys.stream, ID: id, Values: []any{fieldEvent, newEvent(t, fmt.Sprint(i)).AppendJSON(nil)},
			}).Err()
			if err != nil {
				t.Fatal(err)
			}
		}
		at := func(ms int64) time.Time { return time.UnixMilli(ms) }
		for _, test := range []struct {
			since, until time.Time
			want         []string
		}{
			{at(1000), at(3000), places[:3]},
			{at(1001), at(2001), places[1:3]},
			{at(1999).Add(time.Nanosecond), time.Time{}, places[1:]},
			{at(2000).Add(time.Nanosecond), time.Time{}, places[3:]},
			{time.Time{}, at(2000), places[:1]},
			{time.Time{}, at(2000).Add(time.Nanosecond), places[:3]},
			{at(3001), time.Time{}, nil},
			{time.Time{}, at(-5), nil},
			{time.Time{}, at(0), nil},
		} {
			for _, newest := range []bool{false, true} {
				got, _ := pages(t, c, Query{Since: test.since, Until: test.until, NewestFirst: newest, Limit: 1})
				if newest {
					slices.Reverse(got)
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("since %d until %d, newest first %t (-want +got):\n%s", test.since.UnixMilli(), test.until.UnixMilli(), newest, diff)
				}
			}
		}
	})
}

// A filter that nearly nothing fits doesn't read the whole stream in one call.
func TestListIsBounded(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	c := newClient(t, rdb, Config{})
	lines := make([]string, 2*maxScanned+100)
	for i := range lines {
		lines[i] = "common"
	}
	lines[len(lines)-1] = "rare"
	ids := typed(t, c, lines...)
	got, lengths := pages(t, c, Query{Type: "rare"})
	if diff := cmp.Diff(ids[len(ids)-1:], got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int{0, 0, 1}, lengths); diff != "" {
		t.Errorf("pages (-want +got):\n%s", diff)
	}
}

// Large events make short pages, not large answers.
func TestListBoundsBytes(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	c := newClient(t, rdb, Config{})
	for i := range 24 {
		e, err := New("big", "/s", strings.Repeat("x", 1_000_000), ID(fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.PublishOne(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	got, lengths := pages(t, c, Query{Limit: 1000})
	if len(got) != 24 || slices.Max(lengths) > 9 {
		t.Errorf("%d events in pages of %v, want 24 in pages of about 8 MiB", len(got), lengths)
	}
}

func TestListTellsOfBadQueries(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	c := newClient(t, rdb, Config{})
	typed(t, c, "a", "a", "b")
	_, cursor, err := c.List(t.Context(), Query{Type: "a", Limit: 1})
	if err != nil || cursor == "" {
		t.Fatal(cursor, err)
	}
	now := time.Now()
	for want, q := range map[string]Query{
		"type: event type pattern": {Type: "a.**.b"},
		"limit: is 1001":           {Limit: 1001},
		"limit: is -1":             {Limit: -1},
		"until: ":                  {Since: now, Until: now},
		"cursor: it is none":       {Cursor: "!"},
		"cursor: it is none ":      {Cursor: "MTIz"},
		"cursor: it belongs":       {Type: "b", Cursor: cursor},
		"another query":            {Type: "a", Cursor: cursor, NewestFirst: true},
	} {
		if _, _, err := c.List(t.Context(), q); !errors.Is(err, ErrQuery) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want an ErrQuery with %q", q, err, want)
		}
	}
}

// Pages put together are the stream as it was, whatever is stored and trimmed between two of them.
func TestListCursorsAreStable(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		c := newClient(t, rdb, Config{Prefix: fmt.Sprintf("bellhop:{events%d}:", n)})
		var stored []string
		store := func(k int) {
			if k > 0 {
				stored = append(stored, typed(t, c, slices.Repeat([]string{"a"}, k)...)...)
			}
		}
		store(rapid.IntRange(0, 20).Draw(rt, "before"))
		q := Query{Limit: rapid.IntRange(1, 7).Draw(rt, "limit"), NewestFirst: rapid.Bool().Draw(rt, "newest first")}
		first := len(stored)
		var got []string
		for {
			entries, next, err := c.List(context.WithoutCancel(t.Context()), q)
			if err != nil {
				rt.Fatal(err)
			}
			for _, e := range entries {
				got = append(got, e.StreamID)
			}
			if next == "" {
				break
			}
			q.Cursor = next
			if len(stored) < 60 {
				store(rapid.IntRange(0, 5).Draw(rt, "meanwhile"))
			}
		}
		want := stored
		if q.NewestFirst {
			want = slices.Clone(stored[:first])
			slices.Reverse(want)
		}
		if len(got) > len(want) || !slices.Equal(got, want[:len(got)]) || len(got) < first {
			rt.Fatalf("got %v, want %v", got, want)
		}
	})
}

func TestListShowsJunkWhenNothingIsAskedFor(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	c := newClient(t, rdb, Config{})
	typed(t, c, "a")
	if err := rdb.XAdd(t.Context(), junkEntry(c)).Err(); err != nil {
		t.Fatal(err)
	}
	entries, _, err := c.List(t.Context(), Query{})
	if err != nil || len(entries) != 2 || entries[1].Err == nil || entries[1].Event != nil {
		t.Errorf("got %+v, %v", entries, err)
	}
	if entries, _, err = c.List(t.Context(), Query{Type: "**"}); err != nil || len(entries) != 1 {
		t.Errorf("got %+v, %v", entries, err)
	}
}
