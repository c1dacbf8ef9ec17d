package queue

import (
	"slices"
	"sync"
	"testing"
)

// A second batch goes off beside the first once enough items wait for it, and never a third; without leave for it there is one at a time.
func TestBatcherWriters(t *testing.T) {
	t.Parallel()
	for _, second := range []int{0, 4} {
		type written struct {
			writer int
			batch  []int
		}
		began, goOn := make(chan written), make(chan struct{})
		b := &batcher[int]{maxItems: 100, maxBytes: 100, bytes: func(int) int { return 1 }, second: second}
		b.write = func(writer int, batch []int) {
			began <- written{writer, batch}
			<-goOn
		}
		expect := func(want ...int) int {
			t.Helper()
			got := <-began
			if !slices.Equal(got.batch, want) {
				t.Errorf("second %d: wrote %v, want %v", second, got.batch, want)
			}
			return got.writer
		}
		quiet := func() {
			t.Helper()
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.freeWriter() != -1 {
				t.Errorf("second %d: another batch could go off", second)
			}
		}
		b.push(1)
		first := expect(1)
		b.push(2, 3, 4)
		quiet()
		b.push(5)
		if second > 0 {
			if expect(2, 3, 4, 5) == first {
				t.Error("two batches have one writer")
			}
			b.push(6, 7, 8, 9, 10)
			quiet()
			goOn <- struct{}{}
			expect(6, 7, 8, 9, 10)
			goOn <- struct{}{}
		} else {
			quiet()
			goOn <- struct{}{}
			expect(2, 3, 4, 5)
		}
		var done sync.WaitGroup
		done.Go(func() { goOn <- struct{}{} })
		done.Wait()
	}
}
