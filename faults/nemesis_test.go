package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

func TestFaultF24Nemesis(t *testing.T) {
	t.Parallel()
	check(t, "F24", nemesis, withRedis(redistest.WithAOF(), redistest.WithConfig("appendfsync", "always")))
}

// nemesis does one bad thing after the other, and some at once, while jobs are enqueued and run. In the end all is mended, and
// every invariant must hold. The same seed draws the same things.
func nemesis(r *rig) figure {
	seed := *nemesisSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	r.t.Logf("nemesis: replay with -nemesis %v -seed %d", *nemesisFor, seed)
	n := &havoc{rig: r, rand: rand.New(rand.NewPCG(seed, seed)), proxy: newProxy(r.t, r.server.Addr(), seed)}
	direct := r.rdb
	opts, err := redis.ParseURL(n.proxy.url())
	if err != nil {
		r.t.Fatal(err)
	}
	rdb := redis.NewClient(opts)
	r.t.Cleanup(func() { _ = rdb.Close() })
	r.use(rdb, n.proxy.url())
	r.rdb = direct

	for range 3 {
		// Who is killed all the time would be taken for a poison.
		n.workers = append(n.workers, r.supervised(concurrency(5), grace(2*time.Second), maxCrashes(1000)))
	}
	stops := []func(){
		r.producer(10*time.Millisecond, work{}),
		r.producer(100*time.Millisecond, work{For: 200 * time.Millisecond}),
		r.producer(time.Second, work{For: 3 * time.Second, Stubborn: true}),
	}
	for began := time.Now(); time.Since(began) < *nemesisFor; {
		n.strike()
		pause(r.t.Context(), n.between(200*time.Millisecond, 1500*time.Millisecond))
	}
	n.mends.Wait()
	for _, stop := range stops {
		stop()
	}
	h := r.drained(time.Minute + *nemesisFor/4)
	r.counted(len(h.ends), 0) // of those too that were stored though the answer was lost
	return measured(!r.t.Failed(), "%d strikes on %d jobs, %d runs twice, failures 0 (seed %d)", n.strikes, len(h.ends), h.runs()-len(h.ends), seed)
}

func maxCrashes(n int) roleOption { return func(r *role) { r.MaxCrashes = n } }

// havoc draws bad things.
type havoc struct {
	rig     *rig
	rand    *rand.Rand
	proxy   *proxy
	workers []*supervised
	strikes int

	mends sync.WaitGroup
	redis sync.Mutex // one bad thing at a time is done to the server
}

func (n *havoc) between(least, most time.Duration) time.Duration {
	return least + time.Duration(n.rand.Int64N(int64(most-least)))
}

// strike does one bad thing. It draws all that it needs first, so that a replay draws the same.
func (n *havoc) strike() {
	n.strikes++
	what, victim := n.rand.IntN(9), n.workers[n.rand.IntN(len(n.workers))]
	length := n.between(300*time.Millisecond, 3*time.Second)
	long := n.between(5*time.Second, 12*time.Second)
	ctx := n.rig.t.Context()
	tell := func(format string, args ...any) {
		n.rig.t.Logf("%s strike %d: %s", time.Now().Format("15:04:05.000"), n.strikes, fmt.Sprintf(format, args...))
	}
	switch what {
	case 0, 1:
		p := victim.current()
		tell("kill -9 %s", p.role.Name)
		_ = p.cmd.Process.Kill()
	case 2:
		p := victim.current()
		tell("SIGTERM %s", p.role.Name)
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
	case 3:
		p := victim.current()
		tell("freeze %s for %v", p.role.Name, long)
		n.during(ctx, long, func() { _ = p.cmd.Process.Signal(syscall.SIGSTOP) }, func() { _ = p.cmd.Process.Signal(syscall.SIGCONT) })
	case 4:
		tell("kill Redis for %v", length)
		n.toRedis(ctx, length, n.rig.server.Kill, n.rig.server.Restart)
	case 5:
		tell("freeze Redis for %v", length)
		n.toRedis(ctx, length, n.rig.server.Pause, n.rig.server.Resume)
	case 6:
		tell("cut every fifth reply for %v", length)
		n.during(ctx, length, func() { n.proxy.percent.Store(20) }, func() { n.proxy.percent.Store(0) })
	case 7:
		tell("cut all connections, flush all scripts")
		n.proxy.drop()
		n.toRedis(ctx, 0, func() { _ = n.rig.rdb.ScriptFlush(ctx).Err() }, func() {})
	case 8:
		tell("fill Redis for %v", length)
		n.toRedis(ctx, length, func() { n.rig.configure("maxmemory", "1") }, func() { n.rig.configure("maxmemory", "0") })
	}
}

// during mends after a while what it does.
func (n *havoc) during(ctx context.Context, d time.Duration, do, mend func()) {
	do()
	n.mends.Go(func() { pause(ctx, d); mend() })
}

func (n *havoc) toRedis(ctx context.Context, d time.Duration, do, mend func()) {
	n.mends.Go(func() {
		n.redis.Lock()
		defer n.redis.Unlock()
		do()
		pause(ctx, d)
		mend()
	})
}
