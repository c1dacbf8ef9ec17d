package events

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

func TestEachGroupSeesEveryEvent(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{Batch: 7})
		ids := names("e", 50)
		publish(t, c, ids[:25]...) // before the first worker came
		var a, b recorder
		run(t, c, "a", a.handle, ConsumerOptions{})
		run(t, c, "b", b.handle, ConsumerOptions{})
		run(t, c, "b", b.handle, ConsumerOptions{})
		publish(t, c, ids[25:]...)
		for name, r := range map[string]*recorder{"a": &a, "b": &b} {
			eventually(t, "group "+name+" has all", func() bool { return r.count() == len(ids) })
			eventually(t, "group "+name+" has acknowledged all", settled(t, c, name))
			for _, id := range ids {
				if got := r.attempts(id); !cmp.Equal(got, []int{1}) {
					t.Errorf("group %s saw %s with the attempts %v, want it once", name, id, got)
				}
			}
		}
	})
}

// An idle consumer starts within a millisecond or so of the publish: it waits inside Redis.
func TestIdleConsumerIsWoken(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{ClaimAfter: time.Hour}) // no claiming helps
		woken := make(chan time.Time, 1)
		run(t, c, "g", func(context.Context, []Delivery) []error { woken <- time.Now(); return nil }, ConsumerOptions{})
		best := time.Hour
		for _, id := range names("e", 30) {
			began := time.Now()
			publish(t, c, id)
			best = min(best, (<-woken).Sub(began))
		}
		t.Logf("fastest publish to handler: %v", best)
		if best > 50*time.Millisecond { // two loaded cores and the race detector; it is 0.3 ms else
			t.Errorf("the fastest of 30 took %v", best)
		}
	})
}

func TestFailedEventComesAgain(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{ClaimAfter: time.Hour})
		var ok recorder
		var mu sync.Mutex
		failures := map[string]int{"fails": 2, "panics": 1}
		run(t, c, "g", func(ctx context.Context, batch []Delivery) []error {
			outcomes := make([]error, len(batch))
			for i, d := range batch {
				mu.Lock()
				failing := failures[d.Event.ID] > 0
				failures[d.Event.ID]--
				mu.Unlock()
				switch {
				case failing && d.Event.ID == "panics":
					panic("as told")
				case failing:
					outcomes[i] = errors.New("as told")
				default:
					ok.handle(ctx, batch[i:i+1])
				}
			}
			return outcomes
		}, ConsumerOptions{})
		publish(t, c, "fails")
		publish(t, c, "fine")
		publish(t, c, "panics")
		eventually(t, "all are acknowledged", settled(t, c, "g"))
		for id, want := range map[string]int{"fails": 3, "panics": 2} {
			if got := ok.attempts(id); !slices.Contains(got, want) {
				t.Errorf("%s was handled at the attempts %v, want %d", id, got, want)
			}
		}
	})
}

func TestWrongNumberOfOutcomesAcknowledgesNothing(t *testing.T) {
	t.Parallel()
	c := newClient(t, redistest.New(t), Config{})
	var ok recorder
	first := true
	run(t, c, "g", func(ctx context.Context, batch []Delivery) []error {
		if first {
			first = false
			return make([]error, len(batch)+1)
		}
		return ok.handle(ctx, batch)
	}, ConsumerOptions{})
	publish(t, c, "a")
	eventually(t, "it comes again", func() bool { return cmp.Equal(ok.attempts("a"), []int{2}) })
}

func TestShutdownIsQuickAndStrandsNothing(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{ClaimAfter: time.Hour}) // what isn't released would wait an hour
		var seen recorder
		best := time.Hour
		for _, id := range names("round", 5) {
			r := run(t, c, "g", seen.handle, ConsumerOptions{})
			publish(t, c, id)
			eventually(t, "it is idle", func() bool { return seen.attempts(id) != nil && settled(t, c, "g")() })
			best = min(best, r.stop(t))
		}
		if best > 100*time.Millisecond {
			t.Errorf("an idle consumer needs %v to stop", best)
		}
		publish(t, c, "between") // nobody is there: nothing of those who left may take it
		if g := group(t, c, "g"); g.Pending != 0 || g.Consumers != 0 || g.Lag != 1 {
			t.Errorf("after all left the group is %+v", g)
		}
		if keys := rdb.Keys(t.Context(), c.keys.bell+"*").Val(); len(keys) != 0 {
			t.Errorf("left behind: %v", keys)
		}
		run(t, c, "g", seen.handle, ConsumerOptions{})
		eventually(t, "the next one takes it", func() bool { return seen.attempts("between") != nil })
	})
}

// A consumer that stops while it holds events hands them to the others at once, with no attempt spent on those that no
// handler saw.
func TestShutdownReleasesWhatItHolds(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{ClaimAfter: time.Hour, Batch: 2})
		publish(t, c, names("e", 3)...)
		entered, leave := make(chan struct{}), make(chan struct{})
		leaver := run(t, c, "g", func(ctx context.Context, batch []Delivery) []error {
			entered <- struct{}{}
			<-leave
			return all(len(batch), ctx.Err())
		}, ConsumerOptions{})
		<-entered // holds e0 and e1
		var seen recorder
		run(t, c, "g", seen.handle, ConsumerOptions{})
		eventually(t, "the other one took what is free", func() bool { return seen.attempts("e2") != nil })
		leaver.cancel()
		close(leave)
		leaver.stop(t)
		eventually(t, "the other one took what was released", func() bool { return seen.count() == 3 })
		if got := seen.attempts("e0"); !cmp.Equal(got, []int{2}) {
			t.Errorf("e0 has the attempts %v, want its second", got)
		}
	})
}

func TestReleasedUnseenSpendsNoAttempt(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{ClaimAfter: time.Hour})
		consumer, err := c.NewConsumer("g", func(context.Context, []Delivery) []error { return nil }, ConsumerOptions{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		s := consumer.newSession()
		s.join(t.Context())
		publish(t, c, "a")
		if got := s.readBatch(t.Context()); len(got.items) != 1 {
			t.Fatalf("read %+v", got)
		}
		s.leave(t.Context())
		if g := group(t, c, "g"); g.Pending != 1 {
			t.Fatalf("the group is %+v, want one released event", g)
		}
		var seen recorder
		run(t, c, "g", seen.handle, ConsumerOptions{})
		eventually(t, "it is taken", func() bool { return cmp.Equal(seen.attempts("a"), []int{1}) })
	})
}

// A killed process: its connections are gone, it cleans nothing up.
func TestDeadConsumersEventsAreClaimed(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		cfg := Config{ClaimAfter: 300 * time.Millisecond}
		c := newClient(t, rdb, cfg)
		doomed := newSeverable(t, rdb)
		entered, leave := make(chan struct{}), make(chan struct{})
		run(t, newClient(t, doomed, cfg), "g", func(context.Context, []Delivery) []error {
			entered <- struct{}{}
			<-leave
			return nil
		}, ConsumerOptions{})
		defer close(leave)
		publish(t, c, names("e", 5)...)
		<-entered
		var seen recorder
		run(t, c, "g", seen.handle, ConsumerOptions{})
		doomed.cut()
		eventually(t, "the live one has the dead one's events", func() bool { return seen.count() == 5 })
		eventually(t, "all are acknowledged", settled(t, c, "g"))
		if got := seen.attempts("e0"); !cmp.Equal(got, []int{2}) {
			t.Errorf("e0 has the attempts %v, want its second", got)
		}
	})
}

// A handler that needs many times ClaimAfter keeps its batch.
func TestBusyConsumerIsNotRobbed(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{ClaimAfter: 600 * time.Millisecond})
		entered, leave := make(chan struct{}), make(chan struct{})
		var busy, idle recorder
		run(t, c, "g", func(ctx context.Context, batch []Delivery) []error {
			entered <- struct{}{}
			<-leave
			return busy.handle(ctx, batch)
		}, ConsumerOptions{})
		publish(t, c, names("e", 3)...)
		<-entered
		run(t, c, "g", idle.handle, ConsumerOptions{})
		timer := time.NewTimer(4 * 600 * time.Millisecond) // the time in which it could be robbed is the test
		defer timer.Stop()
		<-timer.C
		if idle.count() != 0 {
			t.Errorf("%d events were taken from a live consumer", idle.count())
		}
		close(leave)
		eventually(t, "it finished", settled(t, c, "g"))
		if busy.count() != 3 {
			t.Errorf("the busy one handled %d events, want 3", busy.count())
		}
	})
}

func TestUndecodableEntryIsSetAside(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{})
		ctx := t.Context()
		add := func(values ...any) {
			t.Helper()
			if err := rdb.XAdd(ctx, &redis.XAddArgs{Stream: c.keys.stream, Values: values}).Err(); err != nil {
				t.Fatal(err)
			}
		}
		publish(t, c, "before")
		add("who", "knows")
		add(fieldEvent, `{"specversion":"1.0"}`)
		publish(t, c, "after")
		var seen recorder
		var log lockedBuffer
		run(t, c, "g", seen.handle, ConsumerOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		eventually(t, "the good ones passed", func() bool { return seen.count() == 2 })
		eventually(t, "all are acknowledged", settled(t, c, "g"))
		stats, err := c.Stats(ctx)
		if err != nil || stats.Undecodable != 2 {
			t.Errorf("%d entries count as undecodable, want 2 (%v)", stats.Undecodable, err)
		}
		aside, err := rdb.XRange(ctx, c.keys.junk, "-", "+").Result()
		if err != nil || len(aside) != 2 {
			t.Fatalf("set aside: %v, %v", aside, err)
		}
		if got := aside[0].Values; got["group"] != "g" || got["fields"] != `{"who":"knows"}` || got["error"] == "" || got["id"] == "" {
			t.Errorf("the entry is %v", got)
		}
		if n := strings.Count(log.String(), "level=ERROR"); n != 2 {
			t.Errorf("%d errors were logged, want 2:\n%s", n, log.String())
		}
	})
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestFlushedRedisIsSetUpAnew(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{})
		var seen recorder
		run(t, c, "g", seen.handle, ConsumerOptions{})
		publish(t, c, "a")
		eventually(t, "a is settled", func() bool { return seen.attempts("a") != nil && settled(t, c, "g")() })
		if err := rdb.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		publish(t, c, "a", "b") // a is forgotten, so it is new
		eventually(t, "b is handled", func() bool { return seen.attempts("b") != nil && len(seen.attempts("a")) == 2 })
		eventually(t, "all are acknowledged", settled(t, c, "g"))
	})
}

func TestDeadConsumersAreRemoved(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{})
		publish(t, c, "a", "b")
		take(t, c, "g", 1, 0) // a consumer named x that holds a and has no bell
		consumer, err := c.NewConsumer("g", func(context.Context, []Delivery) []error { return nil }, ConsumerOptions{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		s := consumer.newSession()
		s.join(t.Context())
		if err := s.removeDead(t.Context()); err != nil {
			t.Fatal(err)
		}
		if g := group(t, c, "g"); g.Consumers != 1 || g.Pending != 1 {
			t.Errorf("it holds an event and must stay, but the group is %+v", g)
		}
		entries, _, _ := c.Range(t.Context(), "", 1)
		rdb.XAck(t.Context(), c.keys.stream, "g", entries[0].StreamID)
		if err := s.removeDead(t.Context()); err != nil {
			t.Fatal(err)
		}
		if g := group(t, c, "g"); g.Consumers != 0 {
			t.Errorf("it holds nothing and must go, but the group is %+v", g)
		}
	})
}

func junkEntry(c *Client) *redis.XAddArgs {
	return &redis.XAddArgs{Stream: c.keys.stream, Values: []any{"who", "knows"}}
}
