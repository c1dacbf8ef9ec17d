package worker

import (
	"context"

	"github.com/bellhop-dev/bellhop/queue"
)

// reap takes the jobs of workers that have died or stand still, until ctx ends.
func (p *pool) reap(ctx context.Context) {
	p.queue.Reaper(p.w.cfg.MaxCrashes).Run(ctx, func(r queue.Reaping) {
		switch {
		case r.Err == nil && r.Worker == "":
			p.redis.answered("watch the other workers")
			return
		case r.Err != nil:
			p.redis.failed("watch the other workers", r.Err)
			return
		case r.Frozen:
			p.log.Warn("a worker stands still, its jobs are given to others", "worker", r.Worker, "queue", r.Queue, "jobs", len(r.Jobs))
		case len(r.Jobs) > 0:
			p.log.Warn("a worker has died, its jobs are given to others", "worker", r.Worker, "queue", r.Queue, "jobs", len(r.Jobs))
		}
		for _, job := range r.Jobs {
			if job.Quarantined {
				p.log.Error("a job is quarantined: its process died each time that it ran; mend its handler, then run it again",
					"job", job.ID, "queue", r.Queue, "crashes", job.Crashes)
			}
		}
	})
}
