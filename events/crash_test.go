package events

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

// Redis dies and comes back, twice, while events are published and consumed: every event whose publish was confirmed is
// handled, nothing needs a restart, and the outage is told once, not in a stream of lines.
func TestRedisCrashLosesNothing(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.WithAOF(), redistest.WithConfig("appendfsync", "always"))
	c := newClient(t, server.Client(), Config{ClaimAfter: time.Second})
	var seen recorder
	var log lockedBuffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	run(t, c, "g", seen.handle, ConsumerOptions{Logger: logger})
	run(t, c, "g", seen.handle, ConsumerOptions{Logger: logger})

	var stored []string
	publishing, stop := context.WithCancel(t.Context())
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for i := 0; publishing.Err() == nil; {
			e := newEvent(t, fmt.Sprint("e", i))
			if _, err := c.PublishOne(t.Context(), e); err == nil { // else again: it is stored once
				stored = append(stored, e.ID)
				i++
			}
		}
	}()
	for range 2 {
		before := seen.count()
		eventually(t, "events flow", func() bool { return seen.count() > before+50 })
		server.Kill()
		server.Restart()
	}
	before := seen.count()
	eventually(t, "events flow again", func() bool { return seen.count() > before+50 })
	stop()
	<-finished
	eventually(t, "all are acknowledged", settled(t, c, "g"))
	for _, id := range stored {
		if seen.attempts(id) == nil {
			t.Errorf("%s was stored and never handled", id)
		}
	}
	stats, err := c.Stats(t.Context())
	if err != nil || stats.Length != int64(len(stored)) {
		t.Errorf("%d events are stored, %d were confirmed (%v)", stats.Length, len(stored), err)
	}
	if lines := strings.Count(log.String(), "doesn't answer"); lines > 20 {
		t.Errorf("two outages were told %d times:\n%s", lines, log.String())
	}
}

// Redis freezes while a consumer is stopped: it still returns, within its bounds.
func TestShutdownWhileRedisIsFrozen(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := newClient(t, server.Client(), Config{})
	var seen recorder
	r := run(t, c, "g", seen.handle, ConsumerOptions{})
	publish(t, c, "a")
	eventually(t, "it works", func() bool { return seen.count() == 1 })
	server.Pause()
	took := r.stop(t)
	server.Resume()
	if took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
}

// A consumer cut off from Redis notices, tries on, and finds back.
func TestConsumerFindsBack(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		wire := newSeverable(t, rdb)
		c := newClient(t, rdb, Config{})
		var seen recorder
		var log lockedBuffer
		run(t, newClient(t, wire, Config{ClaimAfter: 200 * time.Millisecond}), "g", seen.handle,
			ConsumerOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		publish(t, c, "a")
		eventually(t, "a is handled", func() bool { return seen.attempts("a") != nil })
		wire.cut()
		publish(t, c, "b")
		eventually(t, "it noticed", func() bool {
			told := log.String()
			// Cut before the acknowledgement of a, it still holds a: that hold is renewed before the bell.
			return strings.Contains(told, `action="read events"`) &&
				(strings.Contains(told, `action="renew the bell"`) || strings.Contains(told, `action="hold events"`))
		})
		wire.mend()
		eventually(t, "b is handled", func() bool { return seen.attempts("b") != nil })
		eventually(t, "all are acknowledged", settled(t, c, "g"))
		eventually(t, "it told that it is back", func() bool { return strings.Contains(log.String(), "works again") })
	})
}

// Whatever order of publishing, reading, acknowledging, failing, crashing, claiming, leaving and trimming: no event
// leaves the stream before every group acknowledged it, and in the end each group has handled each event.
func TestNothingIsLostInAnyOrder(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		world := 0
		rapid.Check(t, func(rt *rapid.T) {
			world++
			w := newWorld(t, rdb, world)
			w.run(rt)
		})
	})
}

// world is a model of the stream beside the real one.
type world struct {
	t       *testing.T
	c       *Client
	groups  []string
	handled map[string]map[string]bool // group -> stream ids acknowledged
	stored  []string
	members map[string][]*session
	next    int
}

func newWorld(t *testing.T, rdb redis.UniversalClient, n int) *world {
	w := &world{
		t: t, groups: []string{"a", "b"},
		c: newClient(t, rdb, Config{
			Prefix: fmt.Sprintf("w%d:{e}:", n), MaxEvents: 20, Retention: time.Nanosecond, Batch: 3, ClaimAfter: 100 * time.Millisecond,
		}),
		handled: map[string]map[string]bool{"a": {}, "b": {}},
		members: make(map[string][]*session),
	}
	for _, g := range w.groups {
		w.join(g)
	}
	return w
}

func (w *world) join(g string) *session {
	consumer, err := w.c.NewConsumer(g, w.handler(g, nil), ConsumerOptions{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.t.Fatal(err)
	}
	s := consumer.newSession()
	if !s.join(w.t.Context()) {
		w.t.Fatal("joined no group")
	}
	w.members[g] = append(w.members[g], s)
	return s
}

// handler acknowledges what fails doesn't name.
func (w *world) handler(g string, fails func(id string) bool) Handler {
	return func(_ context.Context, batch []Delivery) []error {
		outcomes := make([]error, len(batch))
		for i, d := range batch {
			if fails != nil && fails(d.StreamID) {
				outcomes[i] = errors.New("as drawn")
				continue
			}
			w.handled[g][d.StreamID] = true
		}
		return outcomes
	}
}

func (w *world) run(rt *rapid.T) {
	rt.Repeat(map[string]func(*rapid.T){
		"publish": func(rt *rapid.T) {
			var batch []*Event
			for range rapid.IntRange(1, 6).Draw(rt, "n") {
				batch = append(batch, newEvent(w.t, fmt.Sprint("e", w.next)))
				w.next++
			}
			outcomes, err := w.c.Publish(w.t.Context(), batch...)
			if err != nil && !errors.Is(err, ErrFull) {
				rt.Fatal(err)
			}
			for _, o := range outcomes {
				if o.Err == nil {
					w.stored = append(w.stored, o.StreamID)
				}
			}
		},
		"join": func(rt *rapid.T) { w.join(w.drawGroup(rt)) },
		"consume": func(rt *rapid.T) {
			if s := w.drawMember(rt); s != nil {
				fail := rapid.Bool().Draw(rt, "fail")
				s.handler = w.handler(s.group, func(string) bool { return fail })
				s.deliver(w.t.Context(), w.readNow(rt, s))
			}
		},
		"crash after reading": func(rt *rapid.T) {
			if s := w.drawMember(rt); s != nil {
				w.readNow(rt, s)
				w.forget(s)
			}
		},
		"leave with a batch": func(rt *rapid.T) {
			if s := w.drawMember(rt); s != nil {
				w.readNow(rt, s)
				s.leave(w.t.Context())
				w.forget(s)
			}
		},
		"claim": func(rt *rapid.T) {
			if s := w.drawMember(rt); s != nil {
				s.claim(w.t.Context())
			}
		},
		"retry": func(rt *rapid.T) {
			if s := w.drawMember(rt); s != nil {
				w.retryNow(s)
			}
		},
		"trim": func(rt *rapid.T) {
			if _, err := w.c.Trim(w.t.Context()); err != nil {
				rt.Fatal(err)
			}
		},
		"": w.check,
	})
	w.drain(rt)
}

func (w *world) drawGroup(rt *rapid.T) string { return rapid.SampledFrom(w.groups).Draw(rt, "group") }

func (w *world) drawMember(rt *rapid.T) *session {
	members := w.members[w.drawGroup(rt)]
	if len(members) == 0 {
		return nil
	}
	return rapid.SampledFrom(members).Draw(rt, "member")
}

func (w *world) forget(s *session) {
	w.members[s.group] = slices.DeleteFunc(w.members[s.group], func(m *session) bool { return m == s })
}

// readNow is readOnce without waiting.
func (w *world) readNow(rt *rapid.T, s *session) []*item {
	streams, err := w.c.rdb.XReadGroup(w.t.Context(), &redis.XReadGroupArgs{
		Group: s.group, Consumer: s.name, Streams: []string{w.c.keys.stream, ">"}, Count: 3, Block: -1,
	}).Result()
	if errors.Is(err, redis.Nil) {
		return nil
	}
	if err != nil {
		rt.Fatal(err)
	}
	var items []*item
	for _, m := range streams[0].Messages {
		items = append(items, newItem(m.ID, m.Values, 1))
	}
	s.hold(items...)
	return items
}

func (w *world) retryNow(s *session) {
	for _, it := range s.retries {
		it.due = time.Time{}
	}
	s.handler = w.handler(s.group, nil)
	s.retry(w.t.Context())
}

// check: what is stored and not acknowledged by all is on the stream.
func (w *world) check(rt *rapid.T) {
	entries, _, err := w.c.Range(w.t.Context(), "", maxPage)
	if err != nil {
		rt.Fatal(err)
	}
	there := make(map[string]bool)
	for _, e := range entries {
		there[e.StreamID] = true
	}
	for _, id := range w.stored {
		for _, g := range w.groups {
			if !there[id] && !w.handled[g][id] {
				rt.Fatalf("%s is gone, and group %s has not acknowledged it", id, g)
			}
		}
	}
}

// drain: a healthy consumer in each group gets everything that is left, also of those who crashed.
func (w *world) drain(rt *rapid.T) {
	for _, g := range w.groups {
		for _, s := range w.members[g] {
			w.retryNow(s)
			s.leave(w.t.Context())
		}
		s := w.join(g)
		eventually(w.t, "group "+g+" is drained", func() bool {
			s.claim(w.t.Context())
			s.deliver(w.t.Context(), w.readNow(rt, s))
			stats := group(w.t, w.c, g)
			return stats.Pending == 0 && stats.Lag == 0
		})
		for _, id := range w.stored {
			if !w.handled[g][id] {
				rt.Fatalf("group %s never handled %s", g, id)
			}
		}
	}
}
