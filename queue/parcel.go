package queue

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// parcel is one entry on its way.
type parcel struct {
	delivery *delivery
	place    int // among the entries of its call
	id, msg  string
	more     []any                  // what enqueue.lua reads after them; nil is a plain job
	answer   atomic.Pointer[Stored] // nil until it is known
}

func (p *parcel) fill(d *delivery, place int, e Entry) {
	p.delivery, p.place, p.id = d, place, e.Message.ID
	if !e.plain() {
		p.more = e.more()
	}
}

// args appends what enqueue.lua reads, where all jobs are plain or not. Pointers spare a copy of each text's header on the heap.
func (p *parcel) args(to []any, allPlain bool) []any {
	to = append(to, &p.id, &p.msg)
	switch {
	case allPlain:
		return to
	case p.more == nil:
		return append(to, "")
	}
	return append(to, p.more...)
}

// settle gives the answer, which parcels may share.
func (p *parcel) settle(s *Stored) {
	d := p.delivery
	p.answer.Store(s)
	d.settle()
}

// stored is the answer, after a wait.
func (p *parcel) stored(ctx context.Context) Stored {
	if answer := p.answer.Load(); answer != nil {
		return *answer
	}
	return Stored{Err: fmt.Errorf("enqueue: not known yet: %w", ctx.Err())}
}

// delivery is what the parcels of one call have in common.
type delivery struct {
	ctx  context.Context //nolint:containedctx // the caller's: whoever has gone before the send is left out
	open atomic.Int64    // parcels that were sent and not answered, and one until wait
	done chan struct{}   // holds one word once none is open
}

// doneChannels are empty.
var doneChannels = sync.Pool{New: func() any { return make(chan struct{}, 1) }}

func (d *delivery) begin(ctx context.Context) {
	d.ctx, d.done = ctx, doneChannels.Get().(chan struct{})
	d.open.Store(1)
}

func (d *delivery) settle() {
	if d.open.Add(-1) == 0 {
		d.done <- struct{}{}
	}
}

// wait returns once all parcels are answered or ctx has ended.
func (d *delivery) wait(ctx context.Context) {
	d.settle()
	select {
	case <-d.done:
		doneChannels.Put(d.done)
	case <-ctx.Done():
	}
}
