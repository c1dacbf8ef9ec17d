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

	// Undecodable are set aside: their messages can't be read. See Client.Undecodable.
	Undecodable int64
	Paused      bool
}

// Backlog counts a queue's jobs at one moment; a queue that nobody has used yet is empty.
func (c *Client) Backlog(ctx context.Context, queue string) (Backlog, error) {
	var count func() Backlog
	_, err := c.rdb.TxPipelined(ctx, func(p redis.Pipeliner) error {
		count = counting(ctx, p, queue)
		return nil
	})
	if err != nil {
		return Backlog{}, fmt.Errorf("count the jobs of queue %s: %w", queue, err)
	}
	return count(), nil
}

// counting asks for the numbers; what it returns reads the answers.
func counting(ctx context.Context, p redis.Pipeliner, queue string) func() Backlog {
	pending, active := p.LLen(ctx, wire.PendingKey(queue)), p.LLen(ctx, wire.ActiveKey(queue))
	scheduled, retry := p.ZCard(ctx, wire.ScheduledKey(queue)), p.ZCard(ctx, wire.RetryKey(queue))
	dead, completed := p.ZCard(ctx, wire.ArchivedKey(queue)), p.ZCard(ctx, wire.CompletedKey(queue))
	undecodable, paused := p.ZCard(ctx, wire.UndecodableKey(queue)), p.Exists(ctx, wire.PausedKey(queue))
	return func() Backlog {
		return Backlog{
			Pending: pending.Val(), Active: active.Val(), Scheduled: scheduled.Val(), Retry: retry.Val(), Dead: dead.Val(),
			Completed: completed.Val(), Undecodable: undecodable.Val(), Paused: paused.Val() > 0,
		}
	}
}
