package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// endings is a lane's group commit: one call is under way, and what comes meanwhile goes together into the next. Alone, an end
// is written at once. Its memory is bounded by the jobs that the worker holds: each caller waits for its own answer.
type endings struct {
	mu      sync.Mutex
	waiting []*ending
	busy    bool
	request int64
}

// ending is an end on its way.
type ending struct {
	end  End
	err  error
	done chan struct{}
}

// Finish ends attempts and answers for each in its place, after Redis has: nil, ErrNotOwner, or why it can't be known. The
// write outlives ctx, which bounds the wait alone: what a handler did must be told to Redis. Redis out of reach is asked again for as
// long as the lease lasts.
func (w *Worker) Finish(ctx context.Context, ends ...End) []error {
	sent := make([]*ending, len(ends))
	errs := make([]error, len(ends))
	byLane := make(map[*lane][]*ending, 1)
	for i, end := range ends {
		l, err := w.lane(end.job.Queue)
		if err != nil {
			errs[i] = err
			continue
		}
		sent[i] = &ending{end: end, done: make(chan struct{})}
		byLane[l] = append(byLane[l], sent[i])
	}
	for l, some := range byLane {
		w.push(l, some)
	}
	for i, e := range sent {
		if e == nil {
			continue
		}
		select {
		case <-e.done:
			errs[i] = e.err
		case <-ctx.Done():
			errs[i] = fmt.Errorf("end job %s: not known yet: %w", e.end.job.ID, ctx.Err())
		}
	}
	return errs
}

func (w *Worker) push(l *lane, some []*ending) {
	l.ending.mu.Lock()
	defer l.ending.mu.Unlock()
	l.ending.waiting = append(l.ending.waiting, some...)
	if !l.ending.busy {
		l.ending.busy = true
		go w.commit(l)
	}
}

// commit writes batches until nobody waits.
func (w *Worker) commit(l *lane) {
	for {
		batch, request, ok := l.ending.next()
		if !ok {
			return
		}
		w.write(l, l.name("e", request), batch)
		for _, e := range batch {
			if e.end.what != endResult {
				l.release(e.end.job)
			}
			close(e.done)
		}
	}
}

func (q *endings) next() (batch []*ending, request int64, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		q.busy = false
		q.waiting = nil
		return nil, 0, false
	}
	n, size := 0, 0
	for n < len(q.waiting) && n < MaxBatch && (n == 0 || size < maxCallBytes) {
		size += q.waiting[n].end.bytes()
		n++
	}
	batch = append(batch, q.waiting[:n]...)
	rest := copy(q.waiting, q.waiting[n:])
	clear(q.waiting[rest:])
	q.waiting = q.waiting[:rest]
	q.request++
	return batch, q.request, true
}

// write asks until Redis answers, or until the leases have surely ended.
func (w *Worker) write(l *lane, request string, batch []*ending) {
	ctx, cancel := background()
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
	var reply redis.Error
	if !errors.As(err, &reply) {
		return true
	}
	for _, prefix := range [...]string{"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK", "BUSY", "OOM", "NOREPLICAS", "MISCONF"} {
		if redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return false
}
