package worker_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/worker"
)

// line is what a worker hears of Redis. While it stands still, what Redis has answered waits.
type line struct {
	mu     sync.Mutex
	goesOn chan struct{} // closed: it does
	hungUp int           // connections that were closed meanwhile
}

// client is a client on the line.
func (l *line) client(t *testing.T, server *redistest.Server) redis.UniversalClient {
	t.Helper()
	opts := server.Client().(*redis.Client).Options()
	mine := *opts
	mine.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		return &lineConn{Conn: conn, line: l, closed: make(chan struct{})}, err
	}
	rdb := redis.NewClient(&mine)
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

func newLine() *line {
	l := &line{goesOn: make(chan struct{})}
	close(l.goesOn)
	return l
}

func (l *line) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.goesOn, l.hungUp = make(chan struct{}), 0
}

func (l *line) goOn() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.goesOn)
}

func (l *line) state() (goesOn <-chan struct{}, hungUp int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.goesOn, l.hungUp
}

type lineConn struct {
	net.Conn
	line   *line
	once   sync.Once
	closed chan struct{}
}

func (c *lineConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	goesOn, _ := c.line.state()
	select {
	case <-goesOn:
		return n, err
	case <-c.closed:
		return 0, net.ErrClosed
	}
}

func (c *lineConn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.line.mu.Lock()
		c.line.hungUp++
		c.line.mu.Unlock()
	})
	return c.Conn.Close()
}

// named are routes of echo and long that tell who ran an echo. A long job tells that it has begun, and ends with gate.
func named(name string, ran chan<- string, begun chan<- struct{}, gate <-chan struct{}) []job.Route {
	return []job.Route{
		long.HandledBy(func(context.Context, payload) error { begun <- struct{}{}; <-gate; return nil }),
		echo.HandledBy(func(context.Context, payload) error { ran <- name; return nil }),
	}
}

var long = job.Define[payload]("long")

// A push that meets a worker's stop takes its claim's job along: the answer comes to nobody. It goes back at once, not when the worker
// has drained.
func TestAJobThatComesWithTheStopGoesBack(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	b := newBench(t, server.Client(), worker.EngineBellhop)
	slow := newLine()
	ran, begun, gate := make(chan string, 4), make(chan struct{}, 1), make(chan struct{})

	cfg := b.config()
	cfg.Grace = time.Minute // it drains until the job has run
	first, err := worker.New(slow.client(t, server), cfg, named("first", ran, begun, gate)...)
	if err != nil {
		t.Fatal(err)
	}
	stop := b.run(first)
	if _, err := long.Enqueue(t.Context(), b.client, payload{}); err != nil {
		t.Fatal(err)
	}
	receive(b, begun)
	b.eventually("the busy worker watches", func() bool { return b.rdb.Get(t.Context(), wire.WatcherKey("default")).Val() == first.ID() })
	second, _ := b.start(b.config(), named("second", ran, begun, gate)...)
	b.eventually("the idle worker is ready", func() bool { return second.Ready() == nil })

	slow.stop()
	info := b.enqueue(1)
	b.eventually("the claim has taken the job", func() bool { return b.state(info) == "active" })
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	b.eventually("nobody listens any more", func() bool { _, hungUp := slow.state(); return hungUp > 0 })
	slow.goOn()
	if who := receive(b, ran); who != "second" {
		t.Errorf("ran by %s", who)
	}
	close(gate)
	if err := receive(b, stopped); err != nil {
		t.Error(err)
	}
}

// A worker that stood still does not start what came to it meanwhile and was given to others: its last beat tells it that this may be so.
func TestAWorkerThatStoodStillStartsNothingOld(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	b := newBench(t, server.Client(), worker.EngineBellhop)
	still := newLine()
	ran := make(chan string, 4)

	first, err := worker.New(still.client(t, server), b.config(), named("first", ran, nil, nil)...)
	if err != nil {
		t.Fatal(err)
	}
	stop := b.run(first)
	b.eventually("it watches", func() bool { return b.rdb.Get(t.Context(), wire.WatcherKey("default")).Val() == first.ID() })
	second, _ := b.start(b.config(), named("second", ran, nil, nil)...)
	b.eventually("the other one is ready", func() bool { return second.Ready() == nil })

	still.stop()
	info := b.enqueue(1)
	b.eventually("the claim has taken the job", func() bool { return b.state(info) == "active" })
	if who := receive(b, ran); who != "second" {
		t.Errorf("ran by %s", who)
	}
	still.goOn()
	b.eventually("the first one is back", func() bool { return b.rdb.ZScore(t.Context(), wire.BeatsKey("default"), first.ID()).Err() == nil })
	if err := stop(); err != nil { // what it has started is done then
		t.Error(err)
	}
	select {
	case who := <-ran:
		t.Errorf("ran again, by %s", who)
	default:
	}
}

// After a standstill, a job that was claimed before and finds no slot any more goes to an idle worker at once.
func TestWhatAStandstillBroughtFindsAnotherSlot(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	b := newBench(t, server.Client(), worker.EngineBellhop)
	still := newLine()
	ran, gate := make(chan string, 4), make(chan struct{})
	routes := func(name string) job.Route {
		return echo.HandledBy(func(context.Context, payload) error { ran <- name; <-gate; return nil })
	}
	cfg := b.config()
	cfg.Queues, cfg.Concurrency = []worker.Queue{{Name: "one", Weight: 1}, {Name: "two", Weight: 1}}, 1
	first, err := worker.New(still.client(t, server), cfg, routes("first"))
	if err != nil {
		t.Fatal(err)
	}
	b.run(first)
	for _, q := range cfg.Queues {
		b.eventually("it looks", func() bool { return b.rdb.Get(t.Context(), wire.WatcherKey(q.Name)).Val() == first.ID() })
	}
	still.stop()
	jobs := []*job.Info{b.enqueue(1, job.Queue("one")), b.enqueue(2, job.Queue("two"))}
	for _, j := range jobs {
		b.eventually("it is claimed", func() bool { return b.state(j) == "active" })
	}
	<-time.After(8 * time.Second) // the length of the standstill
	still.goOn()
	if who := receive(b, ran); who != "first" {
		t.Errorf("ran by %s", who)
	}
	b.start(cfg, routes("second"))
	if who := receive(b, ran); who != "second" {
		t.Errorf("ran by %s", who)
	}
	close(gate)
}

// lookWithin is how long a push may wait where the watch has to be found again. A lost one expires after 15 s.
const lookWithin = 8 * time.Second

func (b *bench) startsSoon(what string, ran <-chan string) {
	b.t.Helper()
	pushed := time.Now()
	b.enqueue(1)
	receive(b, ran)
	if took := time.Since(pushed); took > lookWithin {
		b.t.Errorf("%s: a job started %v after its push", what, took)
	}
}

// After a restart of Redis or a fail-over, in which the watch was in a worker's name, somebody looks.
func TestTheWatchOutlivesAnOutage(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T, rdb redis.UniversalClient, workers int) (*bench, chan string) {
		t.Helper()
		b := newBench(t, rdb, worker.EngineBellhop)
		ran := make(chan string, 4)
		for range workers {
			w, _ := b.start(b.config(), named("", ran, nil, nil)...)
			b.eventually("ready", func() bool { return w.Ready() == nil })
		}
		b.enqueue(1)
		receive(b, ran)
		b.eventually("one looks", func() bool { return b.rdb.Exists(t.Context(), wire.WatcherKey("default")).Val() == 1 })
		return b, ran
	}
	for name, workers := range map[string]int{"one worker": 1, "three workers": 3} {
		t.Run("restart, "+name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, redistest.WithAOF(), redistest.WithConfig("appendfsync", "always"))
			b, ran := start(t, server.Client(), workers)
			server.Kill()
			<-time.After(1500 * time.Millisecond) // the length of the outage
			server.Restart()
			b.startsSoon("at once", ran)
			b.startsSoon("and again", ran)
		})
	}
	t.Run("fail-over", func(t *testing.T) {
		t.Parallel()
		set := redistest.Sentinel(t)
		b, ran := start(t, set.Client(), 3)
		set.KillMaster()
		b.eventually("there is a master", func() bool { return b.rdb.Set(t.Context(), "x", "1", 0).Err() == nil })
		b.startsSoon("at once", ran)
		b.startsSoon("and again", ran)
	})
}
