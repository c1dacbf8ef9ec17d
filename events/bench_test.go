package events

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

// BenchmarkPublishSingly stores single events of some 300 bytes from 64 goroutines, as a gateway's requests do, beside the bare XADDs
// of as many goroutines: what a handler without dedupe, cap and answers would do.
func BenchmarkPublishSingly(b *testing.B) {
	b.Run("bellhop", func(b *testing.B) {
		c := newClient(b, redistest.New(b), Config{MaxEvents: 100_000_000})
		var n atomic.Int64
		fromMany(b, func() error {
			e, err := New("com.acme.email.received", "/mail", map[string]string{"subject": "a line of text, as subjects are"}, ID(fmt.Sprint(n.Add(1))))
			if err != nil {
				return err
			}
			_, err = c.PublishOne(b.Context(), e)
			return err
		})
	})
	b.Run("xadd", func(b *testing.B) {
		rdb := redistest.New(b)
		body := newEvent(b, "a").AppendJSON(nil)
		fromMany(b, func() error {
			return rdb.Do(b.Context(), "XADD", "stream", "*", "event", body).Err()
		})
	})
}

// fromMany calls fn b.N times from 64 goroutines and reports rate and latency.
func fromMany(b *testing.B, fn func() error) {
	b.Helper()
	const callers = 64
	took := make([]time.Duration, b.N)
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for range callers {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
				began := time.Now()
				if err := fn(); err != nil {
					b.Error(err)
					return
				}
				took[i] = time.Since(began)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(took[b.N/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[b.N*99/100].Microseconds()), "p99-µs")
}
