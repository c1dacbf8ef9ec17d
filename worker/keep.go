package worker

import (
	"context"
	"sync"
	"time"

	"github.com/bellhop-dev/bellhop/queue"
)

// beatLimit bounds one beat: a late one is worth less than the next.
const beatLimit = 2 * time.Second

// beat tells Redis each second that the worker lives, keeps the queues that are its to keep, and cancels what it has lost.
func (p *pool) beat(ctx context.Context, waiter *queue.Waiter) {
	kept := &keepers{pool: p, waiter: waiter, stops: make(map[string]func())}
	defer kept.stop()
	ticker := time.NewTicker(queue.BeatInterval)
	defer ticker.Stop()
	for {
		p.beatOnce(ctx, kept)
		p.tellStuck()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-p.queue.Called():
		}
	}
}

func (p *pool) beatOnce(ctx context.Context, kept *keepers) {
	bounded, cancel := context.WithTimeout(ctx, beatLimit)
	defer cancel()
	for _, b := range p.queue.Beat(bounded) {
		if b.Err != nil {
			if ctx.Err() == nil {
				p.redis.failed("beat for "+b.Queue, b.Err)
			}
			continue
		}
		p.redis.answered("beat for " + b.Queue)
		kept.healed(b.Queue)
		kept.set(ctx, b.Queue, b.Keeper)
		p.lost(b.Lost)
	}
}

// lost ends the contexts of attempts whose jobs others have by now.
func (p *pool) lost(jobs []*queue.Job) {
	if len(jobs) == 0 {
		return
	}
	gone := make(map[*queue.Job]bool, len(jobs))
	for _, j := range jobs {
		gone[j] = true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for a := range p.running.all() {
		if gone[a.held] {
			a.ctx.stop(ErrLostOwnership)
			p.log.Warn("the job was given to another worker while it ran here; its handler is told to stop",
				"job", a.job.ID, "task", a.job.Task, "queue", a.job.Queue)
		}
	}
}

// keepers run for the queues that this worker keeps for the fleet. They move due jobs and remove what has expired.
type keepers struct {
	pool   *pool
	waiter *queue.Waiter
	stops  map[string]func() // by queue
	failed sync.Map          // when a queue's keeper last failed, by queue
}

func (k *keepers) set(ctx context.Context, queue string, keep bool) {
	stop, keeps := k.stops[queue]
	switch {
	case keep && !keeps:
		ctx, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			k.waiter.Keep(ctx, queue, k.kept)
		}()
		k.stops[queue] = func() { cancel(); <-done }
	case !keep && keeps:
		delete(k.stops, queue)
		stop()
	}
}

func (k *keepers) stop() {
	for _, stop := range k.stops {
		stop()
	}
}

func (k *keepers) kept(kept queue.Kept) {
	log := k.pool.log.With("queue", kept.Queue)
	if kept.Err != nil {
		k.failed.Store(kept.Queue, time.Now())
		k.pool.redis.failed("keep "+kept.Queue, kept.Err)
		return
	}
	if kept.Cleaned.Back > 0 {
		log.Warn("jobs were given back whose worker had fallen silent", "jobs", kept.Cleaned.Back)
	}
	if n := kept.Dued.Orphans + kept.Cleaned.Orphans; n > 0 {
		log.Warn("entries without a job were removed", "entries", n)
	}
}

// healed takes a keeper's failure back that did not come again: a keeper that finds nothing to do says nothing.
func (k *keepers) healed(queue string) {
	if at, ok := k.failed.Load(queue); ok && time.Since(at.(time.Time)) > 5*beatLimit/2 {
		k.failed.Delete(queue)
		k.pool.redis.answered("keep " + queue)
	}
}
