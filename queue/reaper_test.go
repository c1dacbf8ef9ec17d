package queue

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
)

// What a reaper may conclude from a row of looks, 250 ms apart.
func TestVerdict(t *testing.T) {
	t.Parallel()
	type look struct {
		beat           int64
		connected, own bool
	}
	row := func(n int, l look) []look {
		looks := make([]look, n)
		for i := range looks {
			looks[i] = l
		}
		return looks
	}
	alive, gone, blind := look{1, true, true}, look{1, false, true}, look{1, false, false}
	moving := func(n int) []look {
		looks := make([]look, n)
		for i := range looks {
			looks[i] = look{beat: int64(i), connected: false, own: true}
		}
		return looks
	}
	for name, c := range map[string]struct {
		looks        []look
		dead, frozen bool
	}{
		"at once":                           {looks: row(1, gone)},
		"its connection ended":              {looks: append(row(2, alive), row(4, gone)...), dead: true},
		"its connection ended a moment ago": {looks: append(row(8, alive), row(1, gone)...)},
		"it was never seen connected":       {looks: row(8, gone)},
		"it was never seen, for long":       {looks: row(16, gone), dead: true},
		"it beats without a connection":     {looks: moving(50)},
		"it stands still, connected":        {looks: row(20, alive)},
		"it stands still for long":          {looks: row(34, alive), frozen: true},
		"our own connection is gone too":    {looks: append(row(2, alive), row(20, blind)...)},
		"ours is back, its own not yet":     {looks: append(append(row(2, alive), row(4, blind)...), row(5, gone)...)},
		"nobody's connection is ever known": {looks: row(34, blind), frozen: true},
		"it came back for one look":         {looks: append(append(row(2, alive), row(1, gone)...), append(row(1, alive), row(1, gone)...)...)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &Reaper{vigils: make(map[post]*vigil)}
			now := time.Now()
			dead, frozen := false, false
			for _, l := range c.looks {
				v := r.watch(post{"q", "w"}, l.beat, now)
				v.mark(l.connected, l.own)
				dead, frozen = v.verdict(now)
				now = now.Add(lookEvery)
			}
			if dead != c.dead || frozen != c.frozen {
				t.Errorf("dead %t, frozen %t; want %t, %t", dead, frozen, c.dead, c.frozen)
			}
		})
	}
}

// Each worker of a large fleet has its watchmen, whoever of them looks.
func TestEveryoneIsWatched(t *testing.T) {
	t.Parallel()
	for _, size := range []int{2, 9, 10, 300} {
		fleet := make([]string, size)
		for i := range fleet {
			fleet[i] = fmt.Sprintf("host-%d:%d", i/20, i)
		}
		watched := make(map[string]int)
		for i, me := range fleet {
			for _, other := range next(me, slices.Concat(fleet[:i], fleet[i+1:])) {
				watched[other]++
			}
		}
		for _, worker := range fleet {
			if watched[worker] != min(size-1, watchmen) {
				t.Errorf("%s of %d has %d watchmen", worker, size, watched[worker])
			}
		}
	}
}

// While nobody holds a job, those who watch a worker take turns, so that one of them looks at it every 500 ms.
func TestWatchmenTakeTurns(t *testing.T) {
	t.Parallel()
	for _, size := range []int{2, 3, 4, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 50, 300} {
		fleet := make([]string, size)
		for i := range fleet {
			fleet[i] = fmt.Sprintf("host-%d:%d", i/20, i)
		}
		const span = 36 * time.Second // a whole number of rounds of those turns
		looks, longest := 0, time.Duration(0)
		watched := make(map[string][]time.Duration)
		for i, me := range fleet {
			others := slices.Concat(fleet[:i], fleet[i+1:])
			r := &Reaper{place: rank(me, others), turns: int64(min(len(others), watchmen) + 1)}
			mine := next(me, others)
			for at := time.Duration(0); at < span; looks++ {
				at += r.untilTurn(time.Unix(1_000_000_000, int64(at)))
				for _, other := range mine {
					watched[other] = append(watched[other], at)
				}
			}
		}
		long := 0
		for _, at := range watched {
			slices.Sort(at)
			for i := range at[1:] {
				gap := at[i+1] - at[i]
				longest = max(longest, gap)
				if gap > lookAtIdle {
					long++
					break
				}
			}
		}
		perSecond := float64(looks) / span.Seconds()
		t.Logf("%d workers: %.1f looks a second; %d are not looked at for more than %v, at most for %v", size, perSecond, long, lookAtIdle, longest)
		if limit := 4 * float64(size) / float64(min(size, watchmen+1)); perSecond > limit+float64(size)/span.Seconds() {
			t.Errorf("%d workers look %.1f times a second, want %.1f", size, perSecond, limit)
		}
		// Where the ring closes, one of some sizes has two turns without a look.
		if size%(watchmen+1) != 4 && long > 0 || long > 1 || longest > 3*lookEvery {
			t.Errorf("%d workers: %d are not looked at for more than %v, at most for %v", size, long, lookAtIdle, longest)
		}
	}
}

func (r *Reaper) seen(t *testing.T) map[post]int64 {
	t.Helper()
	s, err := r.see(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.beats
}

// The reaper of a large fleet looks at its part, finds the next ones when one of them has left, and is no slower than a small one's.
func TestALargeFleetIsWatchedInParts(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, names := t.Context(), []string{"a", "b", "c"}
		others := make([]redis.Z, 99)
		for i := range others {
			others[i] = redis.Z{Score: 1000, Member: fmt.Sprint("w", i)}
		}
		for _, name := range names {
			rdb.ZAdd(ctx, wire.BeatsKey(name), others...)
		}
		me, err := New(rdb).NewWorker("me", names...)
		if err != nil {
			t.Fatal(err)
		}
		r := me.Reaper(3)
		first := r.seen(t)
		if len(first) != watchmen*len(names) {
			t.Fatalf("watches %d posts", len(first))
		}
		if r.pace(sight{beats: first, owned: 1}); r.every != lookEvery {
			t.Errorf("looks every %v", r.every)
		}
		var left post
		for left = range first {
			break
		}
		rdb.ZRem(ctx, wire.BeatsKey(left.queue), left.worker)
		rdb.ZAdd(ctx, wire.BeatsKey(left.queue), redis.Z{Score: 1000, Member: "me"})
		if second := r.seen(t); len(second) != len(first)-1 {
			t.Errorf("one has left, %d of %d posts are seen", len(second), len(first))
		}
		third := r.seen(t)
		if _, there := third[left]; there || len(third) != len(first) {
			t.Errorf("its place was not taken: %d posts", len(third))
		}
	})
}

// With a hundred workers on three queues a death is seen as soon as with two.
func TestADeathInALargeFleet(t *testing.T) {
	t.Parallel()
	ctx, rdb := t.Context(), redistest.New(t)
	client := New(rdb)
	dead, err := client.NewWorker("dead", "a")
	if err != nil {
		t.Fatal(err)
	}
	sub := rdb.Subscribe(ctx, wire.AliveChannel("dead"))
	if _, err := sub.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	if s := client.Enqueue(ctx, []Entry{{Message: &wire.Message{Type: "x", ID: "j", Queue: "a"}}}); s[0].Err != nil {
		t.Fatal(s[0].Err)
	}
	if _, err := dead.Fetch(ctx, "a", 1); err != nil {
		t.Fatal(err)
	}
	// Its watchman: of those that could be, one that is before it on the ring. The others beat on.
	var watchman string
	others := make([]string, 99)
	for i := range others {
		others[i] = fmt.Sprint("w", i)
	}
	for i, w := range others {
		if slices.Contains(next(w, append(slices.Concat(others[:i], others[i+1:]), "dead")), "dead") {
			watchman = w
			break
		}
	}
	beat := func() {
		for _, name := range []string{"a", "b", "c"} {
			zs := make([]redis.Z, 0, len(others))
			for _, w := range others {
				zs = append(zs, redis.Z{Score: float64(time.Now().UnixMilli()), Member: w})
			}
			rdb.ZAdd(ctx, wire.BeatsKey(name), zs...)
		}
	}
	beat()
	me, err := client.NewWorker(watchman, "a", "b", "c")
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(ctx)
	got := make(chan Reaping, 100)
	var wg sync.WaitGroup
	wg.Go(func() { me.Reaper(3).Run(running, func(r Reaping) { got <- r }) })
	t.Cleanup(func() { stop(); wg.Wait() })
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	var died time.Time
	for n := 0; ; {
		select {
		case <-ticker.C:
			beat()
			if n++; n < 6 {
				dead.Beat(ctx)
			} else if died.IsZero() {
				died = time.Now()
				_ = sub.Close()
			}
		case reaping := <-got:
			if reaping.Worker != "dead" {
				t.Fatalf("%+v", reaping)
			}
			if died.IsZero() || len(reaping.Jobs) != 1 || reaping.Frozen {
				t.Errorf("%v after its death: %+v", time.Since(died), reaping)
			}
			t.Logf("%v after its death", time.Since(died))
			return
		case <-time.After(20 * time.Second):
			t.Fatal("nobody saw it")
		}
	}
}

// A worker that is lost without a word, idle or not, leaves its queue's watch to the others with the first look that misses it: what is pushed
// must not wait until it is given up.
func TestTheWatchOfTheLostIsFreeAtOnce(t *testing.T) {
	t.Parallel()
	ctx, rdb := t.Context(), redistest.New(t)
	client := New(rdb)
	connect := func(name string) (*Worker, *redis.PubSub) {
		w, err := client.NewWorker(name, "a")
		if err != nil {
			t.Fatal(err)
		}
		w.Beat(ctx)
		sub := rdb.Subscribe(ctx, wire.AliveChannel(name))
		t.Cleanup(func() { _ = sub.Close() })
		if _, err := sub.Receive(ctx); err != nil {
			t.Fatal(err)
		}
		return w, sub
	}
	me, _ := connect("me")
	_, line := connect("lost")
	rdb.Del(ctx, wire.WatchKey("a")) // the beats made it
	rdb.Set(ctx, wire.WatcherKey("a"), "lost", time.Minute)
	r := me.Reaper(3)
	look := func() int64 {
		r.look(ctx, func(reaping Reaping) { t.Errorf("too soon: %+v", reaping) })
		return rdb.LLen(ctx, wire.WatchKey("a")).Val()
	}
	if n := look(); n != 0 {
		t.Errorf("%d watches, and one who has it", n)
	}
	_ = line.Close()
	for end := time.Now().Add(10 * time.Second); rdb.PubSubNumSub(ctx, wire.AliveChannel("lost")).Val()[wire.AliveChannel("lost")] > 0; {
		if time.Now().After(end) {
			t.Fatal("the connection does not end")
		}
	}
	if n := look(); n != 1 || rdb.Exists(ctx, wire.WatcherKey("a")).Val() != 0 {
		t.Errorf("%d watches after a look", n)
	}
}

// A worker that was killed before its successor began, and was never seen alive by it, keeps the watch for two looks, no longer.
func TestTheWatchOfTheUnseenIsFreeSoon(t *testing.T) {
	t.Parallel()
	ctx, rdb := t.Context(), redistest.New(t)
	me, err := New(rdb).NewWorker("me", "a")
	if err != nil {
		t.Fatal(err)
	}
	rdb.Set(ctx, wire.WatcherKey("a"), "dead", time.Minute)
	rdb.ZAdd(ctx, wire.BeatsKey("a"), redis.Z{Score: float64(time.Now().UnixMilli()), Member: "dead"})
	me.Beat(ctx)
	sub := rdb.Subscribe(ctx, wire.AliveChannel("me"))
	t.Cleanup(func() { _ = sub.Close() })
	if _, err := sub.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	r := me.Reaper(3)
	for i, want := range []int64{0, 1} {
		r.look(ctx, func(reaping Reaping) { t.Errorf("too soon: %+v", reaping) })
		if n := rdb.LLen(ctx, wire.WatchKey("a")).Val(); n != want {
			t.Errorf("look %d: %d watches", i+1, n)
		}
	}
}

// A beat tells of a standstill before it, also when its own answer comes before that of an earlier request; and an answered beat is as old as
// its sending.
func TestBeatsTellOfAStandstill(t *testing.T) {
	t.Parallel()
	now := time.Now()
	l := new(lane)
	if l.hasStood(now.Add(-time.Hour)) {
		t.Error("who never beats has stood still")
	}
	l.beaten(now.Add(-overdueAfter - time.Second))
	if !l.hasStood(now) {
		t.Error("an old beat tells nothing, though its answer is new")
	}
	l.beaten(now)
	if !l.hasStood(now.Add(-3 * time.Second)) {
		t.Error("a request before the standstill's end is taken for a new one")
	}
	if l.hasStood(now) {
		t.Error("a request after the standstill is not")
	}
}

// A beat that was called for and did not reach Redis is due still.
func TestAFailedBeatIsCalledForStill(t *testing.T) {
	t.Parallel()
	w, err := New(redistest.New(t)).NewWorker("w", "a")
	if err != nil {
		t.Fatal(err)
	}
	due := w.lanes["a"].isDue
	if w.Beat(t.Context()); due() {
		t.Fatal("due right after a beat")
	}
	w.call("a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if beaten := w.Beat(ctx); len(beaten) != 1 || beaten[0].Err == nil || !due() {
		t.Errorf("%+v, due %t", beaten, due())
	}
	if beaten := w.Beat(t.Context()); len(beaten) != 1 || beaten[0].Err != nil || due() {
		t.Errorf("%+v, due %t", beaten, due())
	}
}
