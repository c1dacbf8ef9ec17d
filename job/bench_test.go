package job_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/cputime"
	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/job"
)

// note is 100 bytes of JSON.
type note struct {
	N   int64  `json:"n"`
	Pad string `json:"pad"`
}

var (
	noted   = job.Define[note]("bench:note")
	padding = strings.Repeat("x", 79)
)

// BenchmarkEnqueueMany stores jobs in calls of 1,000; an operation is one job.
func BenchmarkEnqueueMany(b *testing.B) {
	rdb := redistest.New(b)
	c := job.NewClient(rdb)
	payloads := make([]note, 1000)
	for i := range payloads {
		payloads[i] = note{N: 100_000 + int64(i), Pad: padding}
	}
	costs(b, rdb, func() {
		for left := b.N; left > 0; left -= len(payloads) {
			for _, result := range noted.EnqueueMany(b.Context(), c, payloads[:min(left, len(payloads))]) {
				if result.Err != nil {
					b.Fatal(result.Err)
				}
			}
		}
	})
}

// BenchmarkEnqueue stores single jobs from 64 goroutines, which share round trips.
func BenchmarkEnqueue(b *testing.B) {
	rdb := redistest.New(b)
	c := job.NewClient(rdb)
	b.SetParallelism(32)
	costs(b, rdb, func() {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := noted.Enqueue(b.Context(), c, note{N: 100_000, Pad: padding}); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

// costs reports the processor time that each job takes of this process and of Redis.
func costs(b *testing.B, rdb redis.UniversalClient, run func()) {
	b.Helper()
	b.ReportAllocs()
	client, server := cputime.Used(), serverTime(b, rdb)
	b.ResetTimer()
	run()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
	b.ReportMetric((cputime.Used()-client).Seconds()*1e6/float64(b.N), "client-µs/op")
	b.ReportMetric((serverTime(b, rdb)-server).Seconds()*1e6/float64(b.N), "redis-µs/op")
}

// serverTime is the processor time that Redis' main thread has used.
func serverTime(b *testing.B, rdb redis.UniversalClient) (sum time.Duration) {
	b.Helper()
	for line := range strings.SplitSeq(rdb.Info(b.Context(), "cpu").Val(), "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		if name == "used_cpu_user_main_thread" || name == "used_cpu_sys_main_thread" {
			seconds, err := strconv.ParseFloat(value, 64)
			if err != nil {
				b.Fatal(err)
			}
			sum += time.Duration(seconds * float64(time.Second))
		}
	}
	return sum
}
