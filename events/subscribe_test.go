package events

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

// subscribed is a subscription in a goroutine, and what it saw.
type subscribed struct {
	running
	mu   sync.Mutex
	seen []string
}

func subscribe(t testing.TB, c *Client, group, pattern string, fail func(d Delivery) error, opts ...SubscribeOption) *subscribed {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s := &subscribed{running: running{cancel: cancel, done: make(chan error, 1)}}
	fn := func(_ context.Context, d Delivery) error {
		s.mu.Lock()
		s.seen = append(s.seen, d.StreamID)
		s.mu.Unlock()
		if fail == nil {
			return nil
		}
		return fail(d)
	}
	go func() {
		s.done <- c.Subscribe(ctx, group, pattern, fn, append(opts, LogTo(slog.New(slog.DiscardHandler)))...)
	}()
	t.Cleanup(func() { s.stop(t) })
	return s
}

func (s *subscribed) calls() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.seen...)
}

func (s *subscribed) want(t testing.TB, ids ...string) {
	t.Helper()
	eventually(t, "as many calls as events", func() bool { return len(s.calls()) >= len(ids) })
	if diff := cmp.Diff(ids, s.calls()); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestSubscribeWithAGroup(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{})
		ids := typed(t, c, "a.1", "b.1", "a.2")
		audit := subscribe(t, c, "audit", "a.*", nil)
		billing := subscribe(t, c, "billing", "b.**", nil)
		audit.want(t, ids[0], ids[2])
		billing.want(t, ids[1])
		// What doesn't match is acknowledged too, or it would hold back trimming.
		eventually(t, "nothing is pending", func() bool { return settled(t, c, "audit")() && settled(t, c, "billing")() })
		audit.stop(t)
		missed := typed(t, c, "a.3")
		again := subscribe(t, c, "audit", "a.*", nil, FromNow()) // the group is there: it goes on where it was
		again.want(t, missed...)
	})
}

func TestSubscribeFromNow(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{})
		typed(t, c, "a", "a")
		s := subscribe(t, c, "late", "a", nil, FromNow())
		eventually(t, "the group is there", func() bool { return group(t, c, "late").Name != "" })
		s.want(t, typed(t, c, "a")...)
	})
}

// A failed event comes again alone, a panic is of one event, and giving up is an end.
func TestSubscribeTriesAgain(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	c := newClient(t, rdb, Config{})
	ids := typed(t, c, "a", "a", "a", "a")
	var attempts [4]atomic.Int64
	s := subscribe(t, c, "g", "a", func(d Delivery) error {
		for i, id := range ids {
			if id == d.StreamID {
				switch n := attempts[i].Add(1); {
				case i == 1 && n < 3:
					return errors.New("not yet")
				case i == 2 && n < 2:
					panic("once")
				case i == 3:
					return errors.New("never")
				}
			}
		}
		return nil
	}, GiveUpAfter(4), Concurrently(3))
	eventually(t, "all is settled", settled(t, c, "g"))
	got := []int64{attempts[0].Load(), attempts[1].Load(), attempts[2].Load(), attempts[3].Load()}
	if diff := cmp.Diff([]int64{1, 3, 2, 4}, got); diff != "" {
		t.Errorf("calls of each event (-want +got):\n%s", diff)
	}
	s.stop(t)
}

func TestSubscribeWithoutAGroup(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{})
		old := typed(t, c, "a")
		all := subscribe(t, c, "", "**", func(Delivery) error { return errors.New("passed over") }, FromOldest())
		all.want(t, old...)
		now := subscribe(t, c, "", "a", nil)
		eventually(t, "it listens", func() bool {
			c.hub.mu.Lock()
			defer c.hub.mu.Unlock()
			return len(c.hub.members) == 2
		})
		fresh := typed(t, c, "b", "a")
		now.want(t, fresh[1])
		all.want(t, old[0], fresh[0], fresh[1])
		stats, err := c.Stats(t.Context())
		if err != nil || len(stats.Groups) != 0 {
			t.Errorf("a tail left groups: %+v, %v", stats.Groups, err)
		}
		all.stop(t)
		now.stop(t)
	})
}

func TestSubscribeRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	c := newClient(t, redistest.New(t), Config{})
	fn := func(context.Context, Delivery) error { return nil }
	for name, err := range map[string]error{
		"pattern":     c.Subscribe(t.Context(), "", "a.**.b", fn),
		"fn":          c.Subscribe(t.Context(), "g", "a", nil),
		"concurrency": c.Subscribe(t.Context(), "g", "a", fn, Concurrently(0)),
		"attempts":    c.Subscribe(t.Context(), "g", "a", fn, GiveUpAfter(-1)),
		"group":       c.Subscribe(t.Context(), "a b", "a", fn),
	} {
		if err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
