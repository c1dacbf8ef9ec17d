package queue_test

import (
	"bytes"
	"fmt"
	"testing"

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
