package worker

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/queue"
)

// attempt is one run of a job, from its fetch until its handler has returned.
type attempt struct {
	lane    *lane
	held    *queue.Job
	job     job.Job
	limits  job.Limits
	started time.Time
	ctx     attemptContext // the handler's

	// Of the pool: its place among those that run.
	runs       bool
	prev, next *attempt

	// Of the runner, once it has begun.
	runner atomic.Int64 // the goroutine's number
	end    atomic.Int64 // when the attempt's time is used up, in Unix nanoseconds

	stuck atomic.Bool // its time is used up, and it goes on
}

func (p *pool) newAttempt(l *lane, held *queue.Job, now time.Time) *attempt {
	a := &attempt{lane: l, held: held, started: now, ctx: attemptContext{base: p.base}}
	a.job, a.limits = heldJob(held)
	return a
}

// deadline is when the attempt's time is used up. It counts from the handler's start.
func (a *attempt) deadline() time.Time {
	if end := a.end.Load(); end != 0 {
		return time.Unix(0, end)
	}
	return endOf(a.limits, a.started)
}

// heldJob is the handler's view of a job. asynq's message has limits in whole seconds; a producer may have left both out.
func heldJob(held *queue.Job) (job.Job, job.Limits) {
	m := held.Message
	headers, event, limits := job.Open(m.Headers)
	if limits.Timeout == 0 {
		limits.Timeout = time.Duration(m.Timeout) * time.Second
	}
	if limits.Deadline.IsZero() && m.Deadline > 0 {
		limits.Deadline = time.Unix(m.Deadline, 0)
	}
	if limits.Timeout <= 0 && limits.Deadline.IsZero() {
		limits.Timeout = job.DefaultTimeout
	}
	return job.Job{
		ID: held.ID, Task: m.Type, Queue: held.Queue, Payload: m.Payload, Headers: headers, Event: event,
		Attempt: m.Retried + 1, MaxRetry: m.Retry,
	}, limits
}

// errGone is the failure of a handler that called runtime.Goexit, as a test's FailNow does.
var errGone = errors.New("the handler ended its goroutine")

func (p *pool) attempt(a *attempt, runner int64) {
	end := endOf(a.limits, time.Now())
	a.runner.Store(runner)
	a.end.Store(end.UnixNano())
	a.ctx.begin(end)
	err := errGone
	defer func() { p.conclude(a, a.ctx.why(), err) }()
	if err = a.ctx.why(); err == nil {
		err = errGone
		err = p.w.process(&a.ctx, &a.job)
	}
}

// conclude frees the attempt's slot and sends its end on its way.
func (p *pool) conclude(a *attempt, cause, err error) {
	end, abandoned := p.ending(a, cause, err)
	a.ctx.finish()
	p.mu.Lock()
	if !p.running.remove(a) { // it was handed back meanwhile
		p.mu.Unlock()
		return
	}
	p.free++
	if abandoned {
		p.unstarted = append(p.unstarted, a.held) // all of them go back at once, to keep their order
	} else {
		p.unanswered++
		a.lane.addEnds(end)
	}
	stopping, starting, rides := p.stopping, len(p.runners.todo) > 0, p.rides(a.lane)
	p.mu.Unlock()
	if !starting { // else the runner that takes the last one tells of the slots
		notify(p.wake)
	}
	if !rides {
		a.lane.ring()
	}
	if stopping {
		notify(p.changed)
	}
}

// ending judges an attempt by why its context has ended, nil if it has not, and by the handler's answer: how it ends in Redis, or that it was
// abandoned and the job goes back.
func (p *pool) ending(a *attempt, cause, err error) (end queue.End, abandoned bool) {
	switch {
	case errors.Is(cause, ErrLostOwnership):
		// Redis refuses whatever we say. Saying it makes the queue forget the job here.
		return queue.HandBack(a.held), false
	case errors.Is(cause, ErrCancelled) && err != nil:
		p.log.Info("job cancelled", "job", a.job.ID, "task", a.job.Task, "queue", a.job.Queue)
		return queue.Cancel(a.held), false
	case errors.Is(cause, ErrTimeout):
		err = late(a, err)
	}
	v := p.w.verdict(&a.job, err)
	if errors.Is(cause, ErrAbandoned) && !v.asked() {
		return end, true
	}
	p.w.logVerdict(&a.job, v)
	switch v.outcome {
	case done:
		return queue.Complete(a.held, a.job.Result()), false
	case revoked:
		return queue.Done(a.held), false
	case snoozed:
		return queue.Snooze(a.held, v.wait), false
	case putOff:
		return queue.Again(a.held, v.wait, v.text), false
	case died:
		return queue.Archive(a.held, v.text), false
	}
	return queue.Retry(a.held, v.wait, v.text), false
}

// late is the failure of an attempt that returned after its time. In time to answer for it, a handler may still discard or
// snooze the job; one that was stuck may not, and no handler can call it done.
func late(a *attempt, err error) error {
	switch {
	case err == nil:
		return ErrTimeout
	case a.stuck.Load():
		after := time.Since(a.deadline()).Round(time.Millisecond)
		return fmt.Errorf("%w; the handler returned %v later: %s", ErrTimeout, after, err) //nolint:errorlint // its words, not its will
	}
	return err
}
