package queue_test

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

// BenchmarkDrain fetches and ends jobs of 100 bytes in batches, one call after the other: what the scripts alone can do.
func BenchmarkDrain(b *testing.B) {
	for _, batch := range []int{1, 10, 200} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			client := queue.New(redistest.New(b))
			w := newWorker(b, client, "bench")
			fill(b, client, b.N)
			b.ResetTimer()
			for done := 0; done < b.N; {
				got, err := w.Fetch(b.Context(), "bench", batch)
				if err != nil {
					b.Fatal(err)
				}
				ends := make([]queue.End, len(got.Jobs))
				for i, job := range got.Jobs {
					ends[i] = queue.Done(job)
				}
				for _, err := range w.Finish(b.Context(), ends...) {
					if err != nil {
						b.Fatal(err)
					}
				}
				done += len(ends)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
		})
	}
}

func fill(b *testing.B, client *queue.Client, n int) {
	b.Helper()
	payload := bytes.Repeat([]byte("x"), 100)
	entries := make([]queue.Entry, 0, 1000)
	for i := range n {
		entries = append(entries, queue.Entry{Message: &wire.Message{
			Type: "bench:noop", ID: fmt.Sprintf("00000000-0000-0000-0000-%012d", i), Queue: "bench", Payload: payload, Retry: 25, Timeout: 1800,
		}})
		if len(entries) == cap(entries) || i == n-1 {
			for _, s := range client.Enqueue(b.Context(), entries) {
				if s.Err != nil {
					b.Fatal(s.Err)
				}
			}
			entries = entries[:0]
		}
	}
}

// BenchmarkPool runs no-op jobs as a pool does: as many fetched as there are free slots, each ended by its own goroutine.
func BenchmarkPool(b *testing.B) {
	for _, slots := range []int{10, 64, 256} {
		b.Run(fmt.Sprint(slots), func(b *testing.B) {
			rdb := redistest.New(b)
			client := queue.New(rdb)
			w := newWorker(b, client, "bench")
			fill(b, client, b.N)
			cpu := usedCPU(b, rdb)
			b.ResetTimer()
			drain(b, w, slots, b.N)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
			b.ReportMetric((usedCPU(b, rdb)-cpu)/b.Elapsed().Seconds()*100, "redis-cpu%")
		})
	}
}

// drain keeps slots busy until n jobs are done.
func drain(b *testing.B, w *queue.Worker, slots, n int) {
	b.Helper()
	freed := make(chan struct{}, slots)
	free := slots
	for done := 0; done < n; {
		got, err := w.Fetch(b.Context(), "bench", free)
		if err != nil {
			b.Fatal(err)
		}
		for _, job := range got.Jobs {
			go func() {
				if err := w.Finish(b.Context(), queue.Done(job))[0]; err != nil {
					b.Error(err)
				}
				freed <- struct{}{}
			}()
		}
		free -= len(got.Jobs)
		if free < slots {
			<-freed
			free, done = free+1, done+1
		}
		for len(freed) > 0 {
			<-freed
			free, done = free+1, done+1
		}
	}
}

func usedCPU(b *testing.B, rdb redis.UniversalClient) float64 {
	b.Helper()
	var sum float64
	for line := range strings.SplitSeq(rdb.Info(b.Context(), "cpu").Val(), "\r\n") {
		if name, v, ok := strings.Cut(line, ":"); ok && (name == "used_cpu_sys" || name == "used_cpu_user") {
			s, _ := strconv.ParseFloat(v, 64)
			sum += s
		}
	}
	return sum
}

// BenchmarkEnqueue stores single jobs from 64 goroutines, which share round trips.
func BenchmarkEnqueue(b *testing.B) {
	client := queue.New(redistest.New(b))
	payload := bytes.Repeat([]byte("x"), 100)
	var n atomic.Int64
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			id := fmt.Sprintf("00000000-0000-0000-0000-%012d", n.Add(1))
			m := &wire.Message{Type: "bench:noop", ID: id, Queue: "bench", Payload: payload, Retry: 25, Timeout: 1800}
			if err := client.Enqueue(b.Context(), []queue.Entry{{Message: m}})[0].Err; err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
}

// BenchmarkEnqueueMany stores jobs in slices of 1,000.
func BenchmarkEnqueueMany(b *testing.B) {
	client := queue.New(redistest.New(b))
	b.ResetTimer()
	fill(b, client, b.N)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
}

// BenchmarkPickUp is the time from a push to the fetched job in an idle worker.
func BenchmarkPickUp(b *testing.B) {
	admin := redistest.New(b)
	client := queue.New(admin)
	w := newWorker(b, client, "bench")
	waiter, err := w.Waiter(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	w.Beat(b.Context())
	started, stopped := make(chan time.Time), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			got, err := waiter.Wait("bench", always)
			if err == nil && len(got.Jobs) == 0 {
				got, err = w.Fetch(b.Context(), "bench", 1)
			}
			if err != nil {
				return
			}
			for _, job := range got.Jobs {
				started <- time.Now()
				w.Finish(b.Context(), queue.Done(job))
			}
		}
	}()
	took := make([]time.Duration, 0, b.N)
	b.ResetTimer()
	for i := range b.N {
		eventually(b, "the worker is idle again", func() bool { return strings.Contains(admin.ClientList(b.Context()).Val(), "cmd=blmove") })
		m := &wire.Message{Type: "bench:noop", ID: fmt.Sprint(i), Queue: "bench", Payload: []byte("x")}
		pushed := time.Now()
		client.Enqueue(b.Context(), []queue.Entry{{Message: m}})
		took = append(took, (<-started).Sub(pushed))
	}
	b.StopTimer()
	_ = waiter.Close()
	<-stopped
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}
