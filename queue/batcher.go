package queue

import (
	"sync"
	"time"
)

// lingerTime is how long a writer's goroutine stays when it has nothing to do: its stack has grown, which takes a new one longer than the rest
// of a lone item's way out. It is short enough for those who look for leaks in their tests.
const lingerTime = 200 * time.Millisecond

// batcher is a group commit: one batch is under way, and what comes meanwhile goes together into the next. Alone, an item is
// written at once; under load the batches grow by themselves. Items are written in the order in which they came, unless two batches may be
// under way.
//
// Its memory is bounded by its callers, each of whom waits for its own answer.
type batcher[T any] struct {
	maxItems int
	maxBytes int
	bytes    func(T) int
	write    func(writer int, batch []T)

	// second, if not zero, is how many items must wait for a second batch to go off while the first is under way. So the server is busy
	// while the callers of the first go on.
	second int

	mu      sync.Mutex
	waiting []T
	busy    [2]bool          // writers
	lingers [2]chan struct{} // of the goroutines of writers that are not busy, if they are there; with room for one call
}

// push hands items over. It does not wait.
func (b *batcher[T]) push(items ...T) {
	if len(items) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = append(b.waiting, items...)
	if writer := b.freeWriter(); writer >= 0 {
		b.busy[writer] = true
		b.start(writer)
	}
}

// start sends a writer's goroutine to work.
func (b *batcher[T]) start(writer int) {
	if call := b.lingers[writer]; call != nil {
		b.lingers[writer] = nil
		call <- struct{}{}
		return
	}
	go b.run(writer)
}

// freeWriter is who may take what waits; -1 is nobody.
func (b *batcher[T]) freeWriter() int {
	switch {
	case !b.busy[0] && !b.busy[1]:
		return 0
	case b.second == 0 || b.busy[0] && b.busy[1] || len(b.waiting) < b.second:
		return -1
	case b.busy[0]:
		return 1
	}
	return 0
}

// run writes batches until nothing has come for a while.
func (b *batcher[T]) run(writer int) {
	call := make(chan struct{}, 1)
	patience := time.NewTimer(lingerTime)
	defer patience.Stop()
	for {
		for batch := b.next(writer, call); batch != nil; batch = b.next(writer, call) {
			b.write(writer, batch)
		}
		patience.Reset(lingerTime)
		select {
		case <-call:
		case <-patience.C:
			if b.leave(writer, call) {
				return
			}
			<-call
		}
	}
}

// next is the writer's next batch. If there is none, its goroutine may be called.
func (b *batcher[T]) next(writer int, call chan struct{}) []T {
	b.mu.Lock()
	defer b.mu.Unlock()
	batch := b.take(writer)
	if batch == nil {
		b.lingers[writer] = call
	}
	return batch
}

// leave takes a goroutine out that was not called.
func (b *batcher[T]) leave(writer int, call chan struct{}) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lingers[writer] != call {
		return false
	}
	b.lingers[writer] = nil
	return true
}

// lead makes the caller the writer, if there is none, and returns its first batch, its own items last. Then it must step down. Otherwise
// the items are in the hands of who writes.
func (b *batcher[T]) lead(items ...T) []T {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = append(b.waiting, items...)
	if b.busy[0] || b.busy[1] {
		return nil
	}
	b.busy[0] = true
	return b.take(0)
}

// stepDown leaves to a goroutine what has come meanwhile.
func (b *batcher[T]) stepDown() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) > 0 {
		b.start(0)
		return
	}
	b.busy[0] = false
}

// take is the writer's next batch; nil ends its work.
func (b *batcher[T]) take(writer int) []T {
	if len(b.waiting) == 0 {
		b.busy[writer] = false
		b.waiting = nil
		return nil
	}
	n, size := 0, 0
	for n < len(b.waiting) && n < b.maxItems && (n == 0 || size < b.maxBytes) {
		size += b.bytes(b.waiting[n])
		n++
	}
	batch := b.waiting[:n:n]
	if b.waiting = b.waiting[n:]; len(b.waiting) == 0 {
		b.waiting = nil
	}
	return batch
}
