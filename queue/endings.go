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
	known    bool        // Redis has answered: err is what it said
	answered atomic.Bool // err is set
	of       *finishing
}

// finishing is one call of Finish or Turn.
type finishing struct {
	left atomic.Int64 // ends without an answer
	done func()       // called when all of them have one
}

func (e *ending) answer() {
	e.answered.Store(true)
	if e.of.left.Add(-1) == 0 {
		e.of.done()
	}
}

// Finish ends attempts and answers for each in its place, after Redis has: nil, ErrNotOwner, or why it can't be known. The
// write outlives ctx, which bounds the wait alone: what a handler did must be told to Redis. Redis out of reach is asked again for as
// long as the lease lasts.
func (w *Worker) Finish(ctx context.Context, ends ...End) []error {
	all := make([]ending, len(ends))
	sent := make([]*ending, len(ends))
	errs := make([]error, len(ends))
	done := make(chan struct{})
	call := &finishing{done: func() { close(done) }}
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
	case <-done:
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

// lead hands ends over and makes the caller their writer: then it returns what is to be written. It returns nil if there is nothing, or
// somebody else writes them.
func (l *lane) lead(ctx context.Context, ends []End, answered func([]error)) []*ending {
	if len(ends) == 0 {
		return nil
	}
	all := make([]ending, len(ends))
	sent := make([]*ending, len(ends))
	call := &finishing{done: func() {
		errs := make([]error, len(all))
		for i := range all {
			errs[i] = all[i].err
		}
		answered(errs)
	}}
	call.left.Store(int64(len(ends)))
	for i := range all {
		all[i].ctx, all[i].end, all[i].of = ctx, ends[i], call
		sent[i] = &all[i]
	}
	newestFirst(sent)
	return l.ending.lead(sent...)
}

// commit writes one batch and answers its callers.
func (w *Worker) commit(l *lane, batch []*ending) {
	l.endRequest++
	w.write(l, l.endRequest, batch)
	w.settleEnds(l, batch)
}

// settleEnds forgets the jobs that have ended and answers those who wait.
func (w *Worker) settleEnds(l *lane, batch []*ending) {
	for _, e := range batch {
		if e.end.what != endResult {
			w.suspicion.lift(e.end.job)
		}
	}
	l.release(batch)
	for _, e := range batch {
		e.answer()
	}
}

// write asks until Redis answers, or until the leases have surely ended.
func (w *Worker) write(l *lane, request int64, batch []*ending) {
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
			if e.err == nil && !e.known {
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
