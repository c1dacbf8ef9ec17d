package queue

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// ending is an end on its way.
type ending struct {
	ctx      context.Context //nolint:containedctx // its caller's: the values of the first one go with the batch
	end      End
	err      error
	answered atomic.Bool // err is set
	of       *finishing
}

// finishing is one call of Finish.
type finishing struct {
	left atomic.Int64 // ends without an answer
	done chan struct{}
}

func (e *ending) answer() {
	e.answered.Store(true)
	if e.of.left.Add(-1) == 0 {
		close(e.of.done)
	}
}

// Finish ends attempts and answers for each in its place, after Redis has: nil, ErrNotOwner, or why it can't be known. The
// write outlives ctx, which bounds the wait alone: what a handler did must be told to Redis. Redis out of reach is asked again for as
// long as the lease lasts.
func (w *Worker) Finish(ctx context.Context, ends ...End) []error {
	all := make([]ending, len(ends))
	sent := make([]*ending, len(ends))
	errs := make([]error, len(ends))
	call := &finishing{done: make(chan struct{})}
	byLane := make(map[*lane][]*ending, 1)
	for i, end := range ends {
		l, err := w.lane(end.job.Queue)
		if err != nil {
			errs[i] = err
			continue
		}
		sent[i] = &all[i]
		sent[i].ctx, sent[i].end, sent[i].of = ctx, end, call
		byLane[l] = append(byLane[l], sent[i])
		call.left.Add(1)
	}
	if len(byLane) == 0 {
		return errs
	}
	for l, some := range byLane {
		newestFirst(some) // over several calls too
		l.ending.push(some...)
	}
	select {
	case <-call.done:
	case <-ctx.Done():
	}
	for i, e := range sent {
		switch {
		case e == nil:
		case e.answered.Load():
			errs[i] = e.err
		default:
			errs[i] = fmt.Errorf("end job %s: not known yet: %w", e.end.job.ID, ctx.Err())
		}
	}
	return errs
}

// commit writes one batch and answers its callers.
func (w *Worker) commit(l *lane, batch []*ending) {
	l.endRequest++
	w.write(l, l.name("e", l.endRequest), batch)
	for _, e := range batch {
		if e.end.what != endResult {
			l.release(e.end.job)
			w.suspicion.lift(e.end.job)
		}
		e.answer()
	}
}

// write asks until Redis answers, or until the leases have surely ended.
func (w *Worker) write(l *lane, request string, batch []*ending) {
	// An attempt that has ended must be told to Redis, whoever has gone meanwhile, or the job runs twice. After the lease others may
	// have taken the job, and writing is of no use.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(batch[0].ctx), leaseTime)
	defer cancel()
	pause := 50 * time.Millisecond
	for {
		err := w.finish(ctx, l, request, batch)
		if err == nil {
			return
		}
		if ctx.Err() == nil && transient(err) {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			pause = min(2*pause, time.Second)
			continue
		}
		for _, e := range batch {
			if e.err == nil {
				e.err = fmt.Errorf("end job %s of queue %q: %w", e.end.job.ID, l.queue, err)
			}
		}
		return
	}
}

// transient tells a Redis that may answer later from one that has answered: an error reply will be the same next time.
func transient(err error) bool {
	if unanswered(err) {
		return true
	}
	for _, prefix := range [...]string{"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK", "BUSY", "OOM", "NOREPLICAS", "MISCONF"} {
		if redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return false
}
