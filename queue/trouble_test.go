package queue_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

// cutter is a TCP proxy that lets requests through and cuts some of the connections before the reply gets back.
type cutter struct {
	listener net.Listener
	to       string

	mu   sync.Mutex
	rate float64
	from int // bytes of a reply that may be cut
	rng  *rand.Rand
	cuts int
}

func newCutter(t *testing.T, to string, seed uint64) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{listener: l, to: to, rng: rand.New(rand.NewPCG(seed, 0))}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { c.serve(client) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return c
}

func (c *cutter) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", c.to)
	if err != nil {
		return
	}
	defer server.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	})
	buf := make([]byte, 1<<20)
	for {
		n, err := server.Read(buf)
		if err != nil || c.cut(n) {
			break
		}
		if _, err := client.Write(buf[:n]); err != nil {
			break
		}
	}
	_ = client.Close()
	wg.Wait()
}

func (c *cutter) cut(n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n < c.from || c.rng.Float64() >= c.rate {
		return false
	}
	c.cuts++
	return true
}

func (c *cutter) set(rate float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rate = rate
}

// Lost answers cost nothing: no false error, no job stored twice, none stranded, none counted twice.
func TestLostRepliesStrandNothing(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	proxy := newCutter(t, server.Addr(), seed)
	rdb := redis.NewClient(&redis.Options{
		Addr: proxy.listener.Addr().String(), ContextTimeoutEnabled: true, DisableIdentity: true, MaxRetries: 1,
		MinRetryBackoff: time.Millisecond, MaxRetryBackoff: time.Millisecond,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	t.Cleanup(func() { _ = rdb.Close() })
	b := setup(t, rdb)
	b.enqueue("warm")
	b.finish(queue.Done(b.take()))
	proxy.set(0.1)

	const n = 500
	for i, id := range ids(n) {
		if s := b.client.Enqueue(b.ctx, []queue.Entry{{Message: message(id)}})[0]; s.Err != nil {
			t.Errorf("enqueue %d: %v", i, s.Err)
		}
	}
	runs := make(map[string]int)
	for empty := 0; empty < 2; {
		got, err := b.worker.Fetch(b.ctx, q, 3)
		if err != nil {
			continue // asked again: what was taken is found
		}
		if len(got.Jobs) == 0 {
			empty++
		}
		var ends []queue.End
		for i, job := range got.Jobs {
			if runs[job.ID]++; i == 2 && runs[job.ID] == 1 {
				ends = append(ends, queue.HandBack(job))
			} else {
				ends = append(ends, queue.Done(job))
			}
		}
		b.finish(ends...)
	}
	proxy.set(0)
	if proxy.cuts < 20 {
		t.Errorf("only %d replies were cut", proxy.cuts)
	}
	if len(runs) != n {
		t.Errorf("%d jobs ran, want %d", len(runs), n)
	}
	b.atRest()
	if v := rdb.Get(b.ctx, wire.ProcessedTotalKey(q)).Val(); v != fmt.Sprint(n+1) {
		t.Errorf("%s counted, want %d", v, n+1)
	}
	if b.worker.Held() != 0 {
		t.Errorf("holds %d", b.worker.Held())
	}
}

// The last fetch of a worker took jobs, and its answer was lost.
func TestLeaveHandsBackWhatALostAnswerTook(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	proxy := newCutter(t, server.Addr(), 1)
	rdb := redis.NewClient(&redis.Options{
		Addr: proxy.listener.Addr().String(), ContextTimeoutEnabled: true, DisableIdentity: true, MaxRetries: -1,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	t.Cleanup(func() { _ = rdb.Close() })
	b := setup(t, rdb)
	b.enqueue("warm", "a", "b", "c", "d")
	b.finish(queue.Done(b.take()))
	want := b.pending()
	proxy.set(1)
	if _, err := b.worker.Fetch(b.ctx, q, 3); err == nil {
		t.Fatal("the answer was not lost")
	}
	proxy.set(0)
	if n := rdb.LLen(b.ctx, wire.ActiveKey(q)).Val(); n != 3 {
		t.Fatalf("%d active, want 3", n)
	}
	if err := b.worker.Leave(b.ctx); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, b.pending()); diff != "" {
		t.Error(diff)
	}
	b.atRest()
}

// SCRIPT FLUSH at any time is no error.
func TestScriptsAreForgottenAtAnyTime(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		for _, id := range ids(100) {
			rdb.ScriptFlush(b.ctx)
			b.enqueue(id)
			rdb.ScriptFlush(b.ctx)
			job := b.take()
			if beats := b.worker.Beat(b.ctx); len(beats) != 1 || beats[0].Err != nil {
				t.Fatalf("%+v", beats)
			}
			b.finish(queue.Done(job))
		}
		b.atRest()
	})
}

// A Redis at its limit refuses new jobs and still ends the running ones.
func TestAFullRedisDrains(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	b := setup(t, server.Client())
	b.enqueue(ids(50)...)
	jobs := b.fetch(10).Jobs
	if err := b.rdb.ConfigSet(b.ctx, "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if s := b.client.Enqueue(b.ctx, []queue.Entry{{Message: message("refused")}})[0]; s.Err == nil {
		t.Error("a full Redis took a job")
	}
	if beats := b.worker.Beat(b.ctx); len(beats) != 1 || beats[0].Err != nil {
		t.Errorf("%+v", beats)
	}
	b.finish(queue.Retry(jobs[0], time.Hour, "boom"), queue.HandBack(jobs[1]), queue.Archive(jobs[2], "dead"))
	for jobs = jobs[3:]; len(jobs) > 0; jobs = b.fetch(10).Jobs {
		for _, job := range jobs {
			b.finish(queue.Done(job))
		}
	}
	b.atRest()
}

// Redis goes away while jobs end, and comes back: they end once.
func TestEndsOutliveARestart(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.WithAOF(), redistest.WithConfig("appendfsync", "always"))
	b := setup(t, server.Client())
	b.enqueue(ids(20)...)
	jobs := b.fetch(20).Jobs
	server.Kill()
	var ends []queue.End
	for _, job := range jobs {
		ends = append(ends, queue.Done(job))
	}
	done := make(chan []error, 1)
	go func() { done <- b.worker.Finish(b.ctx, ends...) }()
	server.Restart()
	select {
	case errs := <-done:
		for _, err := range errs {
			if err != nil {
				t.Error(err)
			}
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the ends were not written")
	}
	b.atRest()
}
