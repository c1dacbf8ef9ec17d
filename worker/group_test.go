package worker_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/worker"
)

// digest aggregates whole groups into one job.
func (b *bench) digest(runs *atomic.Int32) {
	b.t.Helper()
	w, err := worker.New(b.rdb, b.config(), echo.HandledBy(func(_ context.Context, p payload) error {
		if p.N == 777 {
			runs.Add(1)
		}
		return nil
	}))
	if err != nil {
		b.t.Fatal(err)
	}
	if err := w.Aggregate(worker.Groups{Grace: time.Second, MaxSize: 2}, asynq.GroupAggregatorFunc(func(string, []*asynq.Task) *asynq.Task {
		return asynq.NewTask("echo", []byte(`{"n":777}`))
	})); err != nil {
		b.t.Fatal(err)
	}
	b.run(w)
}

// severed is a connection that breaks once its server has the command with the mark, and before it has answered.
type severed struct {
	net.Conn
	mark []byte
	cut  *atomic.Bool // by any connection
	mine atomic.Bool
}

func (c *severed) Write(p []byte) (int, error) {
	if bytes.Contains(p, c.mark) && c.cut.CompareAndSwap(false, true) {
		c.mine.Store(true)
	}
	return c.Conn.Write(p)
}

func (c *severed) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.mine.Load() {
		_ = c.Close()
		return 0, io.EOF
	}
	return n, err
}

// The answer to storing the aggregated job is lost: the request is sent again, and the job is there once.
func TestAggregatedJobIsStoredOnce(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var cut atomic.Bool
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr(), Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		return &severed{Conn: conn, mark: []byte(`"n":777`), cut: &cut}, err
	}})
	t.Cleanup(func() { _ = rdb.Close() })
	b := newBench(t, rdb, worker.EngineBellhop)
	b.enqueue(1, job.Group("g"))
	b.enqueue(2, job.Group("g"))
	// The server has both clients' scripts: the very first call with the mark stores the job.
	if _, err := asynq.NewClientFromRedisClient(rdb).Enqueue(asynq.NewTask("echo", []byte(`{"n":3}`))); err != nil {
		t.Fatal(err)
	}
	var runs atomic.Int32
	b.digest(&runs)
	b.eventually("the group has become a job, which has run", func() bool {
		q, err := b.inspector.GetQueueInfo("default")
		return err == nil && cut.Load() && q.Size == 0 && q.Groups == 0 && b.rdb.Exists(t.Context(), wire.AllAggregationSets("default")).Val() == 0
	})
	if n := runs.Load(); n != 1 {
		t.Errorf("the job ran %d times", n)
	}
}

// How long a set may be worked on does not depend on what the worker's clock says.
func TestGroupsBesideAClockOfTheirOwn(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	server.SetTime(time.Now().Add(-time.Hour))
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr()})
	t.Cleanup(func() { _ = rdb.Close() })
	b := newBench(t, rdb, worker.EngineBellhop)
	b.enqueue(1, job.Group("g"))
	b.enqueue(2, job.Group("g"))
	var runs atomic.Int32
	b.digest(&runs)
	b.eventually("the group has become a job, which has run", func() bool { return runs.Load() == 1 })
}
