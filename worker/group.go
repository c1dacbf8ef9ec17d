package worker

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/hibiken/asynq"

	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/queue"
)

// Groups says when the jobs that wait in a group become one job. Whole seconds count.
type Groups struct {
	// Grace is how long nothing new has come. Default: 1m, at least 1s.
	Grace time.Duration

	// MaxDelay is how long the oldest job waits at most. Default: no limit.
	MaxDelay time.Duration

	// MaxSize is how many jobs make a group ready at once. Default: no limit.
	MaxSize int
}

const (
	defaultGroupGrace = time.Minute
	groupCheck        = 7 * time.Second // between looks at the groups; a shorter Grace shortens it
)

// Aggregate makes one job of the jobs of each group that is ready, in the served queues. The aggregator is a stock one, unchanged; a
// panic of its leaves the group for a later try. If the process dies between storing the one job and dropping the many, they are aggregated
// again. Call it before Run.
func (w *Worker) Aggregate(when Groups, a asynq.GroupAggregator) error {
	if when.Grace == 0 {
		when.Grace = defaultGroupGrace
	}
	if when.Grace < time.Second || when.MaxDelay < 0 || when.MaxSize < 0 {
		return fmt.Errorf("groups: grace is %v, max delay %v, max size %d: at least 1s, 0 and 0", when.Grace, when.MaxDelay, when.MaxSize)
	}
	if a == nil {
		return errors.New("groups: there is no aggregator")
	}
	w.groups, w.aggregator = when, a
	return nil
}

// aggregate looks at the groups of the served queues until ctx ends. A set that it works on then is brought to its end while alive
// lasts; an aggregator can't be interrupted, and what it answers later is not stored.
func (p *pool) aggregate(ctx, alive context.Context) {
	if p.w.aggregator == nil {
		return
	}
	g := &aggregation{pool: p, queue: queue.New(p.w.rdb)}
	ticker := time.NewTicker(min(groupCheck, p.w.groups.Grace))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for _, l := range p.lanes {
			if ctx.Err() != nil {
				return
			}
			if err := g.look(ctx, alive, l.name); err == nil {
				p.redis.answered("aggregate in " + l.name)
			} else if ctx.Err() == nil {
				p.redis.failed("aggregate in "+l.name, err)
			}
		}
	}
}

type aggregation struct {
	*pool
	queue *queue.Client
}

func (g *aggregation) look(ctx, alive context.Context, name string) error {
	when := g.w.groups
	sets, err := g.queue.Aggregate(ctx, name, queue.Grouping{Grace: when.Grace, MaxDelay: when.MaxDelay, MaxSize: when.MaxSize})
	if err != nil {
		return err
	}
	var faults []error
	for i := range sets {
		if ctx.Err() != nil {
			break // the others are given up, which puts their jobs back
		}
		faults = append(faults, g.aggregateSet(alive, &sets[i]))
	}
	return errors.Join(faults...)
}

// aggregateSet stores the one job first and drops the many then: what fails in between is done again, nothing is lost.
func (g *aggregation) aggregateSet(ctx context.Context, s *queue.Set) error {
	if err := g.queue.ReadSet(ctx, s); err != nil || len(s.Messages) == 0 {
		return err
	}
	log := g.log.With("queue", s.Queue, "group", s.Group, "jobs", len(s.Messages))
	entry, err := g.call(ctx, s)
	if err != nil {
		log.Error("the aggregator failed, the group is tried again in two minutes", "err", err)
		return nil
	}
	// A set that was not finished in time is given up: its jobs go back to their group.
	ctx, cancel := context.WithDeadline(ctx, s.Deadline)
	defer cancel()
	switch err := g.queue.Enqueue(ctx, []queue.Entry{entry})[0].Err; {
	case errors.Is(err, queue.ErrIDTaken), errors.Is(err, queue.ErrNotUnique):
		log.Error("the aggregator's job is there already, the group is tried again in two minutes", "err", err)
		return nil
	case err != nil:
		return fmt.Errorf("store the job of group %q: %w", s.Group, err)
	}
	dropped, err := g.queue.DropSet(ctx, s)
	if err == nil && !dropped {
		log.Warn("the group's jobs were given back while the aggregator's job was stored: they are aggregated again")
	}
	return err
}

// call asks the aggregator, which may panic.
func (g *aggregation) call(ctx context.Context, s *queue.Set) (entry queue.Entry, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &job.PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	tasks := make([]*asynq.Task, len(s.Messages))
	for i, m := range s.Messages {
		tasks[i] = asynq.NewTaskWithHeaders(m.Type, m.Payload, m.Headers)
	}
	task := g.w.aggregator.Aggregate(s.Group, tasks)
	if task == nil {
		return entry, errors.New("it returned no task")
	}
	return compose(ctx, task, asynq.Queue(s.Queue))
}
