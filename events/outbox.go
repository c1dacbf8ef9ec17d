package events

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// sendTime bounds a round trip whose callers may have gone: the client tries again within it.
const sendTime = 30 * time.Second

// outbox is a group commit: one call of Redis is under way, and what its callers publish meanwhile goes together into the next. Alone, an
// event is stored at once; under load the calls grow by themselves.
//
// Its memory is bounded by its callers: each waits with one parcel, and takes it away when its context ends.
type outbox struct {
	send func(batch []*parcel)

	mu      sync.Mutex
	waiting []*parcel // in the order in which they came
	busy    bool
}

// parcel is what one caller has stored in one call of Redis.
type parcel struct {
	ctx   context.Context //nolint:containedctx // its caller's: see outbox.store
	items []publishing
	bytes int
	done  chan struct{}
}

// store returns once the parcel's items have their answers, or the caller's context has ended.
func (o *outbox) store(p *parcel) error {
	o.put(p)
	select {
	case <-p.done:
		return nil
	case <-p.ctx.Done():
	}
	if o.takeBack(p) {
		return fmt.Errorf("not sent: %w", p.ctx.Err())
	}
	return fmt.Errorf("not known yet whether it is stored: %w", p.ctx.Err())
}

func (o *outbox) put(p *parcel) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiting = append(o.waiting, p)
	if !o.busy {
		o.busy = true
		go o.run()
	}
}

// takeBack reports whether the parcel was not sent yet, and then never will be.
func (o *outbox) takeBack(p *parcel) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	at := slices.Index(o.waiting, p)
	if at < 0 {
		return false
	}
	o.waiting = slices.Delete(o.waiting, at, at+1)
	return true
}

// run sends until nobody waits.
func (o *outbox) run() {
	for batch := o.next(); len(batch) > 0; batch = o.next() {
		o.send(batch)
		for _, p := range batch {
			close(p.done)
		}
	}
}

// next takes what fits into one call; a parcel is not divided.
func (o *outbox) next() []*parcel {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, events, bytes := 0, 0, 0
	for n < len(o.waiting) {
		p := o.waiting[n]
		events, bytes = events+len(p.items), bytes+p.bytes
		if n > 0 && (events > publishChunkEvents || bytes > publishChunkBytes) {
			break
		}
		n++
	}
	batch := slices.Clone(o.waiting[:n])
	o.waiting = slices.Delete(o.waiting, 0, n)
	if n == 0 {
		o.busy, o.waiting = false, nil
	}
	return batch
}

// send stores a batch in one round trip; in a second one, what a trim made room for.
func (c *Client) send(batch []*parcel) {
	// The callers' contexts differ, and each waits under its own: one that ends must not take the others' events along.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(batch[0].ctx), sendTime)
	defer cancel()
	var items []*publishing
	for _, p := range batch {
		for i := range p.items {
			items = append(items, &p.items[i])
		}
	}
	c.storeChunk(ctx, items)
	if full := stillFull(items); len(full) > 0 {
		if trimmed, err := c.Trim(ctx); err == nil && trimmed.Removed > 0 {
			c.storeChunk(ctx, full)
		}
	}
}
