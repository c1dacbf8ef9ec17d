package queue

import "sync"

// batcher is a group commit: one batch is under way, and what comes meanwhile goes together into the next. Alone, an item is
// written at once; under load the batches grow by themselves. Items are written in the order in which they came.
//
// Its memory is bounded by its callers, each of whom waits for its own answer.
type batcher[T any] struct {
	maxItems int
	maxBytes int
	bytes    func(T) int
	write    func(batch []T)

	mu      sync.Mutex
	waiting []T
	busy    bool
}

// push hands items over. It does not wait.
func (b *batcher[T]) push(items ...T) {
	if len(items) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = append(b.waiting, items...)
	if !b.busy {
		b.busy = true
		go b.run()
	}
}

// run writes batches until nobody waits.
func (b *batcher[T]) run() {
	for batch := b.next(); batch != nil; batch = b.next() {
		b.write(batch)
	}
}

func (b *batcher[T]) next() []T {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) == 0 {
		b.busy = false
		b.waiting = nil
		return nil
	}
	n, size := 0, 0
	for n < len(b.waiting) && n < b.maxItems && (n == 0 || size < b.maxBytes) {
		size += b.bytes(b.waiting[n])
		n++
	}
	batch := b.waiting[:n:n]
	if n == len(b.waiting) {
		b.waiting = nil
	} else {
		b.waiting = append([]T(nil), b.waiting[n:]...)
	}
	return batch
}
