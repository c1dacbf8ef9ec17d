package worker_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/queue"
	"github.com/bellhop-dev/bellhop/worker"
)

// BenchmarkDrain runs jobs of 100 bytes that do nothing: `-benchtime 30000x`. asynq is its server as it comes, not our engine around it.
func BenchmarkDrain(b *testing.B) {
	for _, concurrency := range []int{10, 256} {
		b.Run(fmt.Sprint("bellhop-", concurrency), func(b *testing.B) { benchDrain(b, concurrency, startBellhop) })
		b.Run(fmt.Sprint("asynq-", concurrency), func(b *testing.B) { benchDrain(b, concurrency, startAsynq) })
	}
}

func benchDrain(b *testing.B, concurrency int, start func(*testing.B, redis.UniversalClient, int, func()) (stop func())) {
	b.Helper()
	rdb := redistest.New(b)
	fillQueue(b, rdb, b.N)
	var runs atomic.Int64
	drained := make(chan struct{})
	b.ResetTimer()
	stop := start(b, rdb, concurrency, func() {
		if runs.Add(1) == int64(b.N) {
			close(drained)
		}
	})
	<-drained
	for rdb.LLen(b.Context(), wire.ActiveKey("default")).Val() > 0 {
		<-time.After(time.Millisecond) // until the last ends are written
	}
	b.StopTimer()
	b.ReportMetric(float64(scriptCalls(b, rdb))/float64(b.N), "scripts/job")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
	stop()
}

// scriptCalls is how many scripts the server has run.
func scriptCalls(b *testing.B, rdb redis.UniversalClient) (n int) {
	b.Helper()
	for line := range strings.Lines(rdb.Info(b.Context(), "commandstats").Val()) {
		if rest, ok := strings.CutPrefix(line, "cmdstat_evalsha:calls="); ok {
			calls, _, _ := strings.Cut(rest, ",")
			n, _ = strconv.Atoi(calls)
		}
	}
	return n
}

func startBellhop(b *testing.B, rdb redis.UniversalClient, concurrency int, ran func()) func() {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	route := job.Route{Definition: job.Definition{Name: "noop"}, Handle: func(context.Context, *job.Job) error { ran(); return nil }}
	w, err := worker.New(rdb, worker.Config{Concurrency: concurrency, Logger: slog.New(slog.DiscardHandler)}, route)
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
}

func startAsynq(b *testing.B, rdb redis.UniversalClient, concurrency int, ran func()) func() {
	b.Helper()
	server := asynq.NewServerFromRedisClient(rdb, asynq.Config{Concurrency: concurrency, LogLevel: asynq.FatalLevel})
	if err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { ran(); return nil })); err != nil {
		b.Fatal(err)
	}
	return server.Shutdown
}

func fillQueue(b *testing.B, rdb redis.UniversalClient, n int) {
	b.Helper()
	client := queue.New(rdb)
	payload := bytes.Repeat([]byte("x"), 100)
	var entries []queue.Entry
	for i := range n {
		entries = append(entries, queue.Entry{Message: &wire.Message{
			Type: "noop", ID: fmt.Sprintf("00000000-0000-0000-0000-%012d", i), Queue: "default", Payload: payload, Retry: 25, Timeout: 1800,
		}})
	}
	for _, s := range client.Enqueue(b.Context(), entries) {
		if s.Err != nil {
			b.Fatal(s.Err)
		}
	}
}
