package events

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

// gate lets a test hold the calls that publish, and counts them.
type gate struct {
	calls atomic.Int64
	// entered gets a value when a call is about to go out, which then waits for open.
	entered chan struct{}
	open    chan struct{}
}

// newGate puts a gate between the client and its Redis. It is open once release was called.
func newGate(t *testing.T, rdb redis.UniversalClient) (g *gate, release func()) {
	t.Helper()
	g = &gate{entered: make(chan struct{}, 1000), open: make(chan struct{})}
	rdb.AddHook(g)
	release = sync.OnceFunc(func() { close(g.open) })
	t.Cleanup(release)
	return g, release
}

func (g *gate) DialHook(next redis.DialHook) redis.DialHook { return next }
func (g *gate) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (g *gate) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if args := cmd.Args(); strings.HasPrefix(cmd.Name(), "eval") && args[1] == publishScript.Hash() {
			g.calls.Add(1)
			g.entered <- struct{}{}
			<-g.open
		}
		return next(ctx, cmd)
	}
}

func (c *Client) waitingParcels() int {
	c.outbox.mu.Lock()
	defer c.outbox.mu.Unlock()
	return len(c.outbox.waiting)
}

func TestConcurrentPublishesShareCalls(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	c := newClient(t, rdb, Config{MaxEventBytes: 2000})
	publish(t, c, "before") // loads the script
	g, release := newGate(t, rdb)

	const callers = 200
	outcomes := make([][]Published, callers)
	errs := make([]error, callers)
	var wg sync.WaitGroup
	first := func() {
		outcomes[0], errs[0] = c.Publish(t.Context(), newEvent(t, "0"))
	}
	wg.Go(first)
	<-g.entered
	ids := names("", callers)
	for i := 1; i < callers; i++ {
		wg.Go(func() {
			list := []*Event{newEvent(t, ids[i])}
			switch i {
			case 7:
				list[0].Type = "" // is refused, alone
			case 8:
				list[0] = newEvent(t, "before") // is a duplicate, alone
			case 9:
				list = append(list, newEvent(t, "9b"), newEvent(t, "9c"))
			}
			outcomes[i], errs[i] = c.Publish(t.Context(), list...)
		})
	}
	eventually(t, "all of them wait for the call under way", func() bool { return c.waitingParcels() == callers-2 })
	release()
	wg.Wait()

	if n := g.calls.Load(); n != 2 {
		t.Errorf("%d calls of Redis, want 2: one under way, one with all the others", n)
	}
	seen := make(map[string]int)
	for i, o := range outcomes {
		switch {
		case i == 7:
			if !errors.Is(errs[i], ErrInvalid) {
				t.Errorf("the invalid one: %v", errs[i])
			}
			continue
		case errs[i] != nil:
			t.Errorf("publish %d: %v", i, errs[i])
			continue
		case o[0].Duplicate != (i == 8):
			t.Errorf("publish %d: %+v", i, o[0])
		}
		for _, p := range o {
			seen[p.StreamID]++
		}
		if i == 9 && (o[0].StreamID >= o[1].StreamID && len(o[0].StreamID) == len(o[1].StreamID) || len(o) != 3) {
			t.Errorf("one call's events are out of order: %+v", o)
		}
		if i != 8 {
			e, err := c.Get(t.Context(), o[0].StreamID)
			if err != nil || e.ID != ids[i] {
				t.Errorf("publish %d was answered with the place of %+v (%v)", i, e, err)
			}
		}
	}
	if len(seen) != callers-1+2 {
		t.Errorf("%d places on the stream, want %d", len(seen), callers-1+2)
	}
}

// Whoever gives up takes what was not sent along, and nothing of the others'.
func TestPublishHonoursContexts(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	c := newClient(t, rdb, Config{})
	publish(t, c, "before")
	g, release := newGate(t, rdb)

	type result struct {
		out []Published
		err error
	}
	start := func(ctx context.Context, id string) chan result {
		done := make(chan result, 1)
		go func() {
			out, err := c.Publish(ctx, newEvent(t, id))
			done <- result{out, err}
		}()
		return done
	}
	underWay, giveUpFirst := context.WithCancel(t.Context())
	inFlight := start(underWay, "in flight")
	<-g.entered
	waiting, giveUpSecond := context.WithCancel(t.Context())
	taken := start(waiting, "taken back")
	stays := start(t.Context(), "stays")
	eventually(t, "two wait", func() bool { return c.waitingParcels() == 2 })

	giveUpSecond()
	if r := <-taken; !errors.Is(r.err, context.Canceled) || !strings.Contains(r.err.Error(), "not sent") || r.out[0].Err == nil {
		t.Errorf("given up before it was sent: %+v", r)
	}
	if n := c.waitingParcels(); n != 1 {
		t.Errorf("%d parcels wait, want 1: what was given up must not be kept", n)
	}
	giveUpFirst()
	if r := <-inFlight; !errors.Is(r.err, context.Canceled) || !strings.Contains(r.err.Error(), "not known") {
		t.Errorf("given up under way: %+v", r)
	}
	release()
	if r := <-stays; r.err != nil {
		t.Errorf("the one that stayed: %+v", r)
	}
	stats, err := c.Stats(t.Context())
	if err != nil || stats.Length != 3 {
		t.Errorf("%d events are stored, want before, in flight and stays (%v)", stats.Length, err)
	}
	out, err := c.Publish(t.Context(), newEvent(t, "in flight"), newEvent(t, "taken back"))
	if err != nil || !out[0].Duplicate || out[1].Duplicate {
		t.Errorf("published again: %+v, %v", out, err)
	}
}

func TestPublishKeepsOrderAmongOthers(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{})
		var wg sync.WaitGroup
		for _, who := range []string{"a", "b", "c"} {
			wg.Go(func() {
				places := publish(t, c, names(who, publishChunkEvents+20)...)
				for i := 1; i < len(places); i++ {
					if !before(places[i-1], places[i]) {
						t.Errorf("%s%d is at %s, %s%d at %s", who, i-1, places[i-1], who, i, places[i])
						return
					}
				}
			})
		}
		wg.Wait()
	})
}

// A fault of Redis ends the call: what comes after it isn't tried, and each event has an answer.
func TestPublishStopsAtAFaultOfRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := newClient(t, server.Client(), Config{})
	server.Kill()
	list := make([]*Event, 3*publishChunkEvents)
	for i, id := range names("e", len(list)) {
		list[i] = newEvent(t, id)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := c.Publish(ctx, list...)
	if err == nil {
		t.Fatal("published into nothing")
	}
	for i, p := range out {
		if p.Err == nil || (i >= publishChunkEvents) != strings.Contains(p.Err.Error(), "not sent after others failed") {
			t.Fatalf("event %d: %+v", i, p)
		}
	}
}

// At the cap, what waits together is told so together, and room is looked for once.
func TestConcurrentPublishesOnAFullStream(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	c := newClient(t, rdb, Config{MaxEvents: 50, Retention: time.Hour})
	r := new(recorder)
	running := run(t, c, "group", r.handle, ConsumerOptions{})
	publish(t, c, names("old", 50)...)
	eventually(t, "the group has seen all", settled(t, c, "group"))
	running.stop(t)
	var wg sync.WaitGroup
	var stored, full atomic.Int64
	for _, id := range names("new", 100) {
		wg.Go(func() {
			_, err := c.Publish(t.Context(), newEvent(t, id))
			switch {
			case err == nil:
				stored.Add(1)
			case errors.Is(err, ErrFull):
				full.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	stats, err := c.Stats(t.Context())
	if err != nil || stats.Length > 50 || stored.Load() == 0 || stored.Load() > 50 || stored.Load()+full.Load() != 100 {
		t.Errorf("%d stored, %d refused, %d on the stream (%v)", stored.Load(), full.Load(), stats.Length, err)
	}
}
