package worker_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/worker"
)

// A worker waits for two queues with one slot. A job of the first takes it; then one comes to the second. It goes back unspent, and an idle
// worker starts it at once: it does not wait behind the first.
func TestAJobThatFindsNoSlotGoesBack(t *testing.T) {
	t.Parallel()
	b := newPoolBench(t)
	queues := []worker.Queue{{Name: "first", Weight: 1}, {Name: "second", Weight: 1}}
	gate, long, short := make(chan struct{}), make(chan struct{}, 2), make(chan string, 2)
	cfg := b.config()
	cfg.Queues, cfg.Concurrency = queues, 1
	routes := func(name string) []job.Route {
		return []job.Route{
			job.Define[payload]("long").HandledBy(func(context.Context, payload) error { long <- struct{}{}; <-gate; return nil }),
			echo.HandledBy(func(context.Context, payload) error { short <- name; return nil }),
		}
	}
	busy, _ := b.start(cfg, routes("busy")...)
	for _, q := range queues {
		b.eventually("it waits for "+q.Name, func() bool { return b.rdb.Get(t.Context(), wire.WatcherKey(q.Name)).Val() == busy.ID() })
	}
	if _, err := job.Define[payload]("long").Enqueue(t.Context(), b.client, payload{}, job.Queue("first")); err != nil {
		t.Fatal(err)
	}
	receive(b, long)
	info := b.enqueue(1, job.Queue("second"))
	b.eventually("the job is back", func() bool { return b.state(info) == "pending" })
	if got := b.info(info); got.Retried != 0 || got.LastErr != "" {
		t.Errorf("it has paid: %+v", got)
	}
	start := time.Now()
	b.start(cfg, routes("idle")...)
	if name := receive(b, short); name != "idle" {
		t.Errorf("%s ran it", name)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("the idle worker started it after %v", took)
	}
	close(gate)
	b.enqueue(2, job.Queue("second"))
	receive(b, short)
	b.atRest("first", "second")
}

// All jobs that were fetched start, though each waits for all the others.
func TestFetchedJobsStartAtOnce(t *testing.T) {
	t.Parallel()
	for _, slots := range []int{1, 10, 100, 300} {
		b := newPoolBench(t)
		up, all := make(chan struct{}, slots), make(chan struct{})
		requests := make([]job.Request, 2*slots)
		for i := range requests {
			r, err := echo.Request(payload{N: i})
			if err != nil {
				t.Fatal(err)
			}
			requests[i] = r
		}
		for _, r := range b.client.EnqueueMany(t.Context(), requests) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		cfg := b.config()
		cfg.Concurrency = slots
		_, stop := b.start(cfg, echo.HandledBy(func(context.Context, payload) error { up <- struct{}{}; <-all; return nil }))
		for range slots {
			receive(b, up)
		}
		if n := b.rdb.LLen(t.Context(), wire.ActiveKey("default")).Val(); n != int64(slots) {
			t.Errorf("%d jobs are active in %d slots", n, slots)
		}
		close(all)
		for range slots {
			receive(b, up)
		}
		b.atRest("default")
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
}

// Ends are written though nothing is fetched after them: the queue is paused, or empty, or all slots are busy.
func TestEndsAreWrittenWithoutAFetch(t *testing.T) {
	t.Parallel()
	for _, slots := range []int{2, 100} {
		b := newPoolBench(t)
		gate, up := make(chan struct{}), make(chan int, 2*slots)
		cfg := b.config()
		cfg.Concurrency = slots
		b.start(cfg, echo.HandledBy(func(_ context.Context, p payload) error {
			up <- p.N
			if p.N > 0 {
				<-gate
			}
			return nil
		}))
		for n := range slots { // all slots but one stay busy
			b.enqueue(n)
			receive(b, up)
		}
		b.eventually("the one that has ended is gone", func() bool { return b.rdb.LLen(t.Context(), wire.ActiveKey("default")).Val() == int64(slots-1) })
		if err := b.inspector.PauseQueue("default"); err != nil {
			t.Fatal(err)
		}
		b.enqueue(0)
		close(gate)
		b.eventually("all have ended", func() bool {
			return b.rdb.Exists(t.Context(), wire.ActiveKey("default"), wire.LeaseKey("default")).Val() == 0
		})
		if err := b.inspector.UnpauseQueue("default"); err != nil {
			t.Fatal(err)
		}
		receive(b, up)
		b.atRest("default")
	}
}

// lateLog takes its time for one message.
type lateLog struct {
	slog.Handler
	message string
	until   <-chan struct{}
}

func (l lateLog) Handle(ctx context.Context, r slog.Record) error {
	if strings.Contains(r.Message, l.message) {
		<-l.until
	}
	return l.Handler.Handle(ctx, r)
}

func (l lateLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return lateLog{l.Handler.WithAttrs(attrs), l.message, l.until}
}

// Slots that come back late, with the answer of a fetch whose jobs could not run, are filled.
func TestSlotsThatComeBackLateAreFilled(t *testing.T) {
	t.Parallel()
	b := newPoolBench(t)
	for n := range 32 {
		id := fmt.Sprint("bad", n)
		b.rdb.HSet(t.Context(), wire.JobKey("default", id), "msg", "\xff\xff not a message", "state", "pending")
		b.rdb.LPush(t.Context(), wire.PendingKey("default"), id)
	}
	for n := range 42 {
		b.enqueue(n)
	}
	up, gate, logged := make(chan struct{}, 42), make(chan struct{}), make(chan struct{})
	cfg := b.config()
	cfg.Concurrency = 64
	cfg.Logger = slog.New(lateLog{slog.NewTextHandler(t.Output(), nil), "can't run", logged})
	b.start(cfg, echo.HandledBy(func(context.Context, payload) error { up <- struct{}{}; <-gate; return nil }))
	for range 32 { // while the log holds up the bad ones' slots
		receive(b, up)
	}
	close(logged)
	for range 10 {
		receive(b, up)
	}
	close(gate)
	b.atRest("default")
}

// stallFetches holds a worker's fetches up, as a connection does that stands still. Those that have ends with them pass: ends keep their order,
// so that the others wait for them in any case.
type stallFetches struct {
	until   atomic.Pointer[chan struct{}]
	stalled chan struct{} // has room for one word
}

func (*stallFetches) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}
func (*stallFetches) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (s *stallFetches) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		args := cmds[len(cmds)-1].Args()
		fetch := len(cmds) == 1 && len(args) > 12 && fmt.Sprint(args[2]) == "9" && strings.HasSuffix(fmt.Sprint(args[3]), ":pending")
		if until := s.until.Load(); until != nil && fetch {
			s.stalled <- struct{}{}
			<-*until
		}
		return next(ctx, cmds)
	}
}

// Ends that were to go along with a fetch are written without it when it takes long.
func TestEndsDoNotWaitForAFetchThatStandsStill(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr()})
	t.Cleanup(func() { _ = rdb.Close() })
	stall := &stallFetches{stalled: make(chan struct{}, 1)}
	rdb.AddHook(stall)
	b := newBench(t, rdb, worker.EngineBellhop)
	for n := range 200 {
		b.enqueue(n)
	}
	up, gate := make(chan struct{}, 200), make(chan struct{}, 200)
	cfg := b.config()
	cfg.Concurrency = 128
	b.start(cfg, echo.HandledBy(func(context.Context, payload) error { up <- struct{}{}; <-gate; return nil }))
	for range 128 {
		receive(b, up)
	}
	release := make(chan struct{})
	stall.until.Store(&release)
	ended := 0
	for stands := false; !stands; {
		gate <- struct{}{}
		ended++
		select {
		case <-stall.stalled:
			stands = true
		case <-time.After(200 * time.Millisecond): // the end went along
		}
	}
	for range 20 {
		gate <- struct{}{}
	}
	b.eventually("the ends are written", func() bool {
		n, _ := server.Admin().Get(t.Context(), wire.ProcessedTotalKey("default")).Int()
		return n >= 20
	})
	stall.until.Store(nil)
	close(release)
	for range 180 - ended {
		gate <- struct{}{}
	}
	b.atRest("default")
}
