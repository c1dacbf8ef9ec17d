package fleet

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

// How a process waits for the ends of jobs. A look marks the job with the process' channel, and the script that ends a marked job
// tells the channel how. All waiters of a process share one connection, and their looks the round trips. Stock workers and tools tell
// nothing, and what is told may be lost with the connection: so each job is looked at again, ever more seldom.
const (
	firstLook = time.Second
	lastLook  = 5 * time.Second

	// lookAtOnce is how many jobs share a round trip, and longestKept the longest payload that is kept while their end is awaited.
	lookAtOnce  = 500
	longestKept = 64 << 10

	// lookLimit bounds a look at many jobs.
	lookLimit = 5 * time.Second

	// subscribeWithin is how long the first look waits for the subscription. Without one, looks must do.
	subscribeWithin = time.Second

	// wordGrace is how long the word of a job's end may take that a look has found gone. A process with more to do than it can reads it late.
	wordGrace = time.Second

	// lingerTime is how long the connection stays for the next waiter.
	lingerTime = 2 * time.Second
)

// Await returns once the job has ended: Completed, with the result, even if nothing of the job is kept; or Dead. It fails with
// ErrNoJob if the job is gone otherwise: it was never there, was deleted, or was done and not kept, by a stock server or before the
// call. When ctx ends, it fails with ctx's error and returns the job as it was last seen.
//
// A payload of more than 64 KiB may be missing from the answer. The end is told at once by bellhop's workers. What stock servers and tools do is seen 5 s later at most.
func (c *Client) Await(ctx context.Context, queueName, id string) (Job, error) {
	w := c.vigil.join(ctx, queue.Ref{Queue: queueName, ID: id})
	select {
	case <-w.ended:
		return w.job, w.err
	case <-ctx.Done():
	}
	last := c.vigil.quit(w)
	select {
	case <-w.ended: // at the same moment
		return w.job, w.err
	default:
	}
	return last, fmt.Errorf("await job %s in queue %s: %w", id, queueName, ctx.Err())
}

// vigil is a process' waiting for the ends of jobs. It runs as long as somebody waits.
type vigil struct {
	rdb     redis.UniversalClient
	queue   *queue.Client
	channel string
	kick    chan struct{} // a new waiter

	mu      sync.Mutex
	running bool
	jobs    map[string]*awaited // by key
	fresh   []*awaited          // to be looked at first
	forgone []queue.Ref         // nobody waits for them any more
}

func newVigil(rdb redis.UniversalClient, q *queue.Client) *vigil {
	return &vigil{rdb: rdb, queue: q, channel: wire.EndedChannel(rand.Text()), kick: make(chan struct{}, 1), jobs: make(map[string]*awaited)}
}

// awaited is a job that somebody waits for.
type awaited struct {
	ref     queue.Ref
	waiters map[*waiter]struct{}

	last   Job
	seen   bool
	told   bool // last is its end, by what was told
	absent bool // the last look didn't find it
	next   time.Time
	pause  time.Duration
}

// waiter is one call of Await.
type waiter struct {
	of    *awaited
	ended chan struct{}
	job   Job
	err   error
}

func (v *vigil) join(ctx context.Context, ref queue.Ref) *waiter {
	v.mu.Lock()
	defer v.mu.Unlock()
	key := wire.JobKey(ref.Queue, ref.ID)
	a := v.jobs[key]
	if a == nil {
		a = &awaited{ref: ref, waiters: make(map[*waiter]struct{}, 1)}
		v.jobs[key] = a
	}
	w := &waiter{of: a, ended: make(chan struct{})}
	a.waiters[w] = struct{}{}
	a.pause = firstLook
	v.fresh = append(v.fresh, a)
	select {
	case v.kick <- struct{}{}:
	default:
	}
	if !v.running {
		v.running = true
		go v.run(context.WithoutCancel(ctx)) // it serves other callers too, and ends with the last of them
	}
	return w
}

// quit ends a waiter that nobody waits with any more, and tells what was last seen.
func (v *vigil) quit(w *waiter) Job {
	v.mu.Lock()
	defer v.mu.Unlock()
	a := w.of
	key := wire.JobKey(a.ref.Queue, a.ref.ID)
	delete(a.waiters, w)
	if len(a.waiters) == 0 && v.jobs[key] == a {
		delete(v.jobs, key)
		v.forgone = append(v.forgone, a.ref)
	}
	return a.last
}

// conclude answers those who wait for a job. Others may have come since a's last waiter went: theirs is another one.
func (v *vigil) conclude(a *awaited, job Job, err error) {
	if key := wire.JobKey(a.ref.Queue, a.ref.ID); v.jobs[key] == a {
		delete(v.jobs, key)
	}
	for w := range a.waiters {
		w.job, w.err = job, err
		close(w.ended)
	}
	clear(a.waiters)
}

func (v *vigil) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sub := v.rdb.Subscribe(ctx, v.channel)
	defer func() { _ = sub.Close() }()
	words := sub.ChannelWithSubscriptions(redis.WithChannelHealthCheckInterval(lastLook)) // subscribes again after an outage
	v.awaitSubscription(words)
	timer := time.NewTimer(0)
	defer timer.Stop()
	idle := time.Now()
	for {
		for some := range slices.Chunk(v.due(), lookAtOnce) {
			v.lookAt(ctx, some)
		}
		v.forgo(ctx)
		next, busy := v.next()
		if busy {
			idle = time.Now()
		} else if (words == nil || time.Since(idle) >= lingerTime) && v.rest() {
			return
		}
		timer.Reset(next)
		if !v.listen(words, timer.C) {
			words = nil // the client was closed: the next look will tell
		}
	}
}

func (v *vigil) awaitSubscription(words <-chan any) {
	timer := time.NewTimer(subscribeWithin)
	defer timer.Stop()
	select {
	case <-words:
	case <-timer.C:
	}
}

// listen takes what is told until there is a reason to look. It says false when the subscription is over.
func (v *vigil) listen(words <-chan any, timer <-chan time.Time) bool {
	for {
		select {
		case <-timer:
			return true
		case <-v.kick:
			return true
		case word, open := <-words:
			switch word := word.(type) {
			case *redis.Subscription:
				v.lookAtAll() // subscribed anew: what was told meanwhile is lost
				return true
			case *redis.Message:
				if v.hear(word.Payload) {
					return true
				}
			}
			if !open {
				return false
			}
		}
	}
}

// hear takes the word of a job's end. It says whether a look must tell more.
func (v *vigil) hear(text string) bool {
	e, err := queue.ParseEnding(text)
	if err != nil {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	a := v.jobs[e.JobKey]
	if a == nil {
		return false
	}
	job := a.last
	if e.Message != nil {
		job.read(e.Message)
	}
	job.NextAt = time.Time{}
	switch e.Outcome {
	case queue.OutcomeCompleted:
		job.State, job.Result, job.ResultCut = completed, e.Result, e.Cut
		if !e.Cut {
			v.conclude(a, job, nil)
			return false
		}
	case queue.OutcomeDead:
		job.State = archived
	case queue.OutcomeGone:
		v.conclude(a, Job{}, noJob(a.ref.Queue, a.ref.ID))
		return false
	}
	// Its hash tells the rest, if it is still there.
	a.last, a.told = job, true
	v.fresh = append(v.fresh, a)
	return true
}

func (v *vigil) lookAtAll() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.fresh = slices.Collect(maps.Values(v.jobs))
}

// due are the jobs to look at now.
func (v *vigil) due() []*awaited {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	due := make(map[*awaited]struct{}, len(v.fresh))
	for _, a := range v.fresh {
		due[a] = struct{}{}
	}
	v.fresh = nil
	for _, a := range v.jobs {
		if !a.next.IsZero() && !now.Before(a.next) {
			due[a] = struct{}{}
		}
	}
	// Whoever has come first is looked at first, as far as a map allows: within a queue by id, so that a look is the same for the same jobs.
	return slices.SortedFunc(maps.Keys(due), func(a, b *awaited) int {
		return cmp.Or(cmp.Compare(a.ref.Queue, b.ref.Queue), cmp.Compare(a.ref.ID, b.ref.ID))
	})
}

// lookStep is how often the jobs are gone through for those that are due.
const lookStep = 50 * time.Millisecond

// next is how long until a job is due; busy, whether there is any.
func (v *vigil) next() (wait time.Duration, busy bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	wait = lingerTime
	now := time.Now()
	for _, a := range v.jobs {
		if !a.next.IsZero() {
			wait = min(wait, max(a.next.Sub(now), lookStep))
		}
	}
	if len(v.fresh) > 0 {
		wait = 0
	}
	return wait, len(v.jobs) > 0
}

// rest ends the vigil unless somebody has come.
func (v *vigil) rest() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.running = len(v.jobs) > 0
	return !v.running
}

func (v *vigil) lookAt(ctx context.Context, jobs []*awaited) {
	refs := make([]queue.Ref, len(jobs))
	for i, a := range jobs {
		refs[i] = a.ref
	}
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	standings, err := v.queue.Look(ctx, v.channel, refs...)
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	for i, a := range jobs {
		a.next = now.Add(a.pause)
		a.pause = min(a.pause*3/2, lastLook)
		if err != nil && (!a.seen || errors.Is(err, redis.ErrClosed)) {
			v.conclude(a, Job{}, fmt.Errorf("await job %s in queue %s: %w", a.ref.ID, a.ref.Queue, err))
		} else if err == nil {
			v.saw(a, standings[i], now)
		}
	}
}

// saw takes what a look has found.
func (v *vigil) saw(a *awaited, s queue.Standing, now time.Time) {
	job := newJob(a.ref.Queue, a.ref.ID, s)
	switch {
	case s.State == "" && a.told:
		v.conclude(a, a.last, nil)
	case s.State == "" && a.seen && !a.absent:
		a.absent, a.next = true, now.Add(wordGrace) // the word of its end may be under way
	case s.State == "":
		v.conclude(a, Job{}, noJob(a.ref.Queue, a.ref.ID))
	case job.Dead(), job.Completed():
		v.conclude(a, job, nil)
	default:
		if len(job.Payload) > longestKept {
			job.Payload = nil
		}
		a.last, a.seen, a.told, a.absent = job, true, false, false
	}
}

// forgo takes the marks off jobs that nobody waits for any more. What fails expires.
func (v *vigil) forgo(ctx context.Context) {
	v.mu.Lock()
	refs := slices.DeleteFunc(v.forgone, func(ref queue.Ref) bool { return v.jobs[wire.JobKey(ref.Queue, ref.ID)] != nil })
	v.forgone = nil
	v.mu.Unlock()
	if len(refs) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	_ = v.queue.Forgo(ctx, v.channel, refs...)
}
