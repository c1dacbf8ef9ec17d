package fleet

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/wire"
)

// Backlog counts a queue's jobs by state.
type Backlog struct {
	Pending, Active, Scheduled, Retry, Dead, Completed int64
	Paused                                             bool
}

// Backlog counts a queue's jobs at one moment; a queue that nobody has used yet is empty.
func (c *Client) Backlog(ctx context.Context, queue string) (Backlog, error) {
	var pending, active, scheduled, retry, dead, completed, paused *redis.IntCmd
	_, err := c.rdb.TxPipelined(ctx, func(p redis.Pipeliner) error {
		pending, active = p.LLen(ctx, wire.PendingKey(queue)), p.LLen(ctx, wire.ActiveKey(queue))
		scheduled, retry = p.ZCard(ctx, wire.ScheduledKey(queue)), p.ZCard(ctx, wire.RetryKey(queue))
		dead, completed = p.ZCard(ctx, wire.ArchivedKey(queue)), p.ZCard(ctx, wire.CompletedKey(queue))
		paused = p.Exists(ctx, wire.PausedKey(queue))
		return nil
	})
	if err != nil {
		return Backlog{}, fmt.Errorf("count the jobs of queue %s: %w", queue, err)
	}
	return Backlog{
		Pending: pending.Val(), Active: active.Val(), Scheduled: scheduled.Val(), Retry: retry.Val(),
		Dead: dead.Val(), Completed: completed.Val(), Paused: paused.Val() > 0,
	}, nil
}
