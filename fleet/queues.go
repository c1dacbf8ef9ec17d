package fleet

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/wire"
)

// Queue is a queue and what waits in it.
type Queue struct {
	Name string
	Backlog

	// Workers is how many live workers take jobs from it; those that are on their way out don't count.
	Workers int
}

// Queues are all that hold or have held jobs, and those that a live worker serves, by name. Each is counted for itself: a job that
// moves meanwhile from one queue to another may be in both or neither.
func (c *Client) Queues(ctx context.Context) ([]Queue, error) {
	names, err := c.rdb.SMembers(ctx, wire.AllQueues).Result()
	if err != nil {
		return nil, fmt.Errorf("list the queues: %w", err)
	}
	workers, err := c.Workers(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the queues: %w", err)
	}
	served := make(map[string]int)
	for _, name := range names {
		served[name] = 0
	}
	for _, w := range workers {
		for name, weight := range w.Queues {
			if weight > 0 && !w.Draining {
				served[name]++
			}
		}
	}
	queues := make([]Queue, 0, len(served))
	for some := range slices.Chunk(slices.Sorted(maps.Keys(served)), countedAtOnce) {
		counts := make([]func() Backlog, len(some))
		_, err := c.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, name := range some {
				counts[i] = counting(ctx, p, name)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("count the jobs of %d queues: %w", len(some), err)
		}
		for i, name := range some {
			queues = append(queues, Queue{Name: name, Backlog: counts[i](), Workers: served[name]})
		}
	}
	return queues, nil
}

// countedAtOnce queues are counted in one round trip.
const countedAtOnce = 100

// HasQueue tells whether a queue holds or has held jobs.
func (c *Client) HasQueue(ctx context.Context, queue string) (bool, error) {
	known, err := c.rdb.SIsMember(ctx, wire.AllQueues, queue).Result()
	if err != nil {
		return false, fmt.Errorf("look up queue %s: %w", queue, err)
	}
	return known, nil
}
