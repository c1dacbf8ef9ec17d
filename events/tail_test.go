package events

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

func newTail(t testing.TB, c *Client, after, pattern string) *Tail {
	t.Helper()
	tail, err := c.Tail(t.Context(), after, pattern)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tail.Close)
	return tail
}

// follow reads n entries.
func follow(t testing.TB, tail *Tail, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var ids []string
	for range n {
		e, err := tail.Next(ctx)
		if err != nil {
			t.Fatalf("after %d of %d: %v", len(ids), n, err)
		}
		ids = append(ids, e.StreamID)
	}
	return ids
}

func (c *Client) hubRuns() bool {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	return c.hub.running
}

func TestTailFollows(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{})
		old := typed(t, c, "a.x", "b.x", "a.y")
		now := newTail(t, c, "", "")
		all := newTail(t, c, Beginning, "")
		as := newTail(t, c, old[0], "a.*")
		fresh := typed(t, c, "b.z", "a.z")
		for name, test := range map[string]struct {
			tail *Tail
			want []string
		}{
			"now":    {now, fresh},
			"all":    {all, append(slices.Clone(old), fresh...)},
			"resume": {as, []string{old[2], fresh[1]}},
		} {
			if diff := cmp.Diff(test.want, follow(t, test.tail, len(test.want))); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
		late := typed(t, c, "a.late")
		for _, tail := range []*Tail{now, all, as} {
			if diff := cmp.Diff(late, follow(t, tail, 1)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if p := tail.Position(); p != late[0] {
				t.Errorf("position is %s, want %s", p, late[0])
			}
		}
		// What doesn't match moves the position too, else a resume would read it all again.
		other := typed(t, c, "b.other")
		eventually(t, "the position moves on", func() bool { return as.Position() == other[0] })
	})
}

func TestTailStandsOnAnEmptyStream(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{})
		now, all := newTail(t, c, "", ""), newTail(t, c, Beginning, "")
		got := make(chan []string, 2)
		for _, tail := range []*Tail{now, all} {
			go func() { got <- follow(t, tail, 1) }()
		}
		want := typed(t, c, "a")
		for range 2 {
			if diff := cmp.Diff(want, <-got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		}
	})
}

// However many tails there are, and whenever they come, each sees each event once and in order; and one blocked read serves them all.
func TestTailsShareOneRead(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	c := newClient(t, rdb, Config{})
	const tails, n = 30, 600
	first := typed(t, c, "a")[0]
	ids := []string{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	got := make([][]string, tails)
	begin := make(chan struct{})
	for i := range tails {
		wg.Go(func() {
			if i%3 > 0 {
				<-begin // joins while events come
			}
			tail, err := c.Tail(t.Context(), first, "")
			if err != nil {
				t.Error(err)
				return
			}
			defer tail.Close()
			got[i] = follow(t, tail, n)
		})
	}
	for i := range n / 10 {
		if i == n/20 {
			close(begin)
		}
		mu.Lock()
		ids = append(ids, typed(t, c, slices.Repeat([]string{"a"}, 10)...)...)
		mu.Unlock()
	}
	wg.Wait()
	for i := range got {
		if !slices.Equal(got[i], ids) {
			t.Errorf("tail %d saw %d events of %d, or in another order", i, len(got[i]), len(ids))
		}
	}
	// Fresh tails, all idle.
	for range tails {
		tail, err := c.Tail(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer tail.Close()
			_, _ = tail.Next(t.Context())
		})
	}
	eventually(t, "they listen", func() bool {
		c.hub.mu.Lock()
		defer c.hub.mu.Unlock()
		return len(c.hub.members) == tails
	})
	eventually(t, "one read is blocked", func() bool { return blockedReads(t, rdb) == 1 })
	typed(t, c, "a")
	wg.Wait()
}

func blockedReads(t testing.TB, rdb redis.UniversalClient) int {
	t.Helper()
	n := 0
	for line := range strings.SplitSeq(rdb.ClientList(t.Context()).Val(), "\n") {
		if strings.Contains(line, "cmd=xread ") && strings.Contains(line, "flags=b") {
			n++
		}
	}
	return n
}

// One that isn't read holds a bounded number of events, delays nobody, and still gets all of them.
func TestSlowTail(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	c := newClient(t, rdb, Config{})
	first := typed(t, c, "a")
	slow, quick := newTail(t, c, first[0], ""), newTail(t, c, first[0], "")
	early := typed(t, c, "a")
	follow(t, slow, 1)
	follow(t, quick, 1)
	if slow.member == nil {
		t.Fatal("it does not listen")
	}
	slowMember := slow.member
	var ids []string
	for range 6 {
		ids = append(ids, typed(t, c, slices.Repeat([]string{"a"}, maxUnfetched/3)...)...)
		follow(t, quick, maxUnfetched/3) // it isn't held up
	}
	eventually(t, "the slow one is dropped", func() bool {
		slowMember.mu.Lock()
		defer slowMember.mu.Unlock()
		return slowMember.dropped
	})
	slowMember.mu.Lock()
	held := len(slowMember.unfetched)
	slowMember.mu.Unlock()
	if held != maxUnfetched {
		t.Errorf("%d events are held for it, want %d", held, maxUnfetched)
	}
	if p := slow.Position(); p != early[0] {
		t.Errorf("its position is %s, want %s", p, early[0])
	}
	if got := follow(t, slow, len(ids)); !slices.Equal(got, ids) {
		t.Errorf("it saw other events than were published, or in another order")
	}
	last := typed(t, c, "a")
	if diff := cmp.Diff(last, follow(t, slow, 1)); diff != "" {
		t.Errorf("it doesn't follow any more (-want +got):\n%s", diff)
	}
}

// A tail whose next events were trimmed is told, once, and goes on with what is left.
func TestTailTellsOfTrimming(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		c := newClient(t, rdb, Config{})
		ids := typed(t, c, slices.Repeat([]string{"a"}, 10)...)
		trimTo := func(id string) {
			if err := rdb.XTrimMinID(t.Context(), c.keys.stream, id).Err(); err != nil {
				t.Fatal(err)
			}
		}
		trimTo(ids[5])
		for after, gap := range map[string]bool{ids[1]: true, ids[5]: false, ids[6]: false, Beginning: false} {
			tail := newTail(t, c, after, "")
			want := ids[max(5, slices.Index(ids, after)+1):]
			if gap {
				if e, err := tail.Next(t.Context()); !errors.Is(err, ErrTrimmed) {
					t.Errorf("after %s: got %+v, %v, want ErrTrimmed", after, e, err)
				}
			}
			if diff := cmp.Diff(want, follow(t, tail, len(want))); diff != "" {
				t.Errorf("after %s (-want +got):\n%s", after, diff)
			}
		}
	})
}

func TestTailOnAStreamTrimmedToNothing(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	c := newClient(t, rdb, Config{})
	ids := typed(t, c, "a", "a")
	if err := rdb.XTrimMaxLen(t.Context(), c.keys.stream, 0).Err(); err != nil {
		t.Fatal(err)
	}
	seenAll := newTail(t, c, ids[1], "")
	missedOne := newTail(t, c, ids[0], "")
	if _, err := missedOne.Next(t.Context()); !errors.Is(err, ErrTrimmed) {
		t.Errorf("got %v, want ErrTrimmed", err)
	}
	next := typed(t, c, "a")
	if diff := cmp.Diff(next, follow(t, missedOne, 1)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// Nobody can tell here that nothing lay between: it is told of a hole, or gets the event.
	if e, err := seenAll.Next(t.Context()); err == nil && e.StreamID != next[0] || err != nil && !errors.Is(err, ErrTrimmed) {
		t.Errorf("got %+v, %v", e, err)
	}
}

// An outage is waited out, without a hole; trimming that overtook the tail meanwhile is told.
func TestTailOverAnOutage(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.WithAOF(), redistest.WithConfig("appendfsync", "always"))
	c := newClient(t, server.Client(), Config{})
	tail := newTail(t, c, "", "")
	want := typed(t, c, "a")
	if diff := cmp.Diff(want, follow(t, tail, 1)); diff != "" {
		t.Fatal(diff)
	}
	server.Restart()
	eventually(t, "Redis is back", func() bool { return server.Client().Ping(t.Context()).Err() == nil })
	want = typed(t, c, "a", "a")
	if diff := cmp.Diff(want, follow(t, tail, 2)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// Cut off while the stream is trimmed past it.
	other := newSeverable(t, server.Client())
	cut := newClient(t, other, Config{})
	behind := newTail(t, cut, want[1], "")
	type result struct {
		Entry
		err error
	}
	got := make(chan result, 2)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() {
		for range 2 {
			e, err := behind.Next(ctx)
			got <- result{e, err}
		}
	}()
	eventually(t, "it listens", cut.hubRuns)
	other.cut()
	eventually(t, "its reads fail", func() bool { return cut.hub.failures.Load() > 0 })
	ids := typed(t, c, "a", "a", "a")
	if err := server.Client().XTrimMinID(t.Context(), c.keys.stream, ids[2]).Err(); err != nil {
		t.Fatal(err)
	}
	other.mend()
	if r := <-got; !errors.Is(r.err, ErrTrimmed) {
		t.Errorf("got %+v, want ErrTrimmed", r)
	}
	if r := <-got; r.err != nil || r.StreamID != ids[2] {
		t.Errorf("got %+v, want %s", r, ids[2])
	}
}

func TestTailEnds(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	c := newClient(t, rdb, Config{})
	tail, err := c.Tail(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := tail.Next(ctx)
		done <- err
	}()
	eventually(t, "it listens", c.hubRuns)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Next returned %v", err)
	}
	tail.Close()
	eventually(t, "the hub ends after its last tail", func() bool { return !c.hubRuns() })
	for _, bad := range []string{"1", "x-1", "1-", "-", fmt.Sprint(time.Now())} {
		if _, err := c.Tail(t.Context(), bad, ""); !errors.Is(err, ErrQuery) {
			t.Errorf("after %q: %v", bad, err)
		}
	}
	if _, err := c.Tail(t.Context(), "", "a.**.b"); !errors.Is(err, ErrQuery) {
		t.Errorf("a bad pattern: %v", err)
	}
}

// xranges counts the reads that tails make by themselves.
type xranges struct{ n atomic.Int64 }

func (*xranges) DialHook(next redis.DialHook) redis.DialHook { return next }

func (x *xranges) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (x *xranges) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		x.n.Add(1)
		return next(ctx, cmds)
	}
}

// A place that is still to come, as a client may make one up, or remember it from before a failover, must not take the hub there: the
// other tails would be behind it for good.
func TestTailAfterAPlaceToCome(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		for name, before := range map[string]int{"empty": 0, "with events": 3} {
			t.Run(name, func(t *testing.T) {
				if err := rdb.FlushDB(t.Context()).Err(); err != nil {
					t.Fatal(err)
				}
				reads := new(xranges)
				rdb.AddHook(reads)
				c := newClient(t, rdb, Config{})
				if before > 0 {
					publish(t, c, names("old", before)...)
				}
				for _, after := range []string{"99999999999999-0", "18446744073709551615-18446744073709551615"} {
					first, second := newTail(t, c, after, ""), newTail(t, c, "", "")
					waiting, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
					if e, err := first.Next(waiting); err == nil {
						t.Errorf("after %s came %s", after, e.StreamID)
					}
					stop()
					began := reads.n.Load()
					waiting, stop = context.WithTimeout(t.Context(), 300*time.Millisecond)
					if e, err := second.Next(waiting); err == nil {
						t.Errorf("of now came %s", e.StreamID)
					}
					stop()
					if n := reads.n.Load() - began; n > 10 {
						t.Errorf("a tail that waits read Redis %d times", n)
					}
					want := publish(t, c, "new"+name+after)
					for name, tail := range map[string]*Tail{"first": first, "second": second} {
						if diff := cmp.Diff(want, follow(t, tail, 1)); diff != "" {
							t.Errorf("%s (-want +got):\n%s", name, diff)
						}
					}
					first.Close()
					second.Close()
				}
			})
		}
	})
}

// After a failover that lost events the hub may be where the stream no longer is. Who joins then must not ask Redis without a pause.
func TestTailBehindAHubThatIsAhead(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	reads := new(xranges)
	rdb.AddHook(reads)
	c := newClient(t, rdb, Config{})
	publish(t, c, "a")
	ahead := newTail(t, c, "", "")
	ahead.at = place{ms: 99999999999999}
	ahead.readyTo = ahead.at
	waiting, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	_, _ = ahead.Next(waiting)
	stop()
	tail := newTail(t, c, "", "")
	began := reads.n.Load()
	waiting, stop = context.WithTimeout(t.Context(), time.Second)
	defer stop()
	if _, err := tail.Next(waiting); err == nil {
		t.Error("something came")
	}
	if n := reads.n.Load() - began; n > 30 {
		t.Errorf("it read Redis %d times in a second", n)
	}
	want := publish(t, c, "b")
	if diff := cmp.Diff(want, follow(t, tail, 1)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
