package queue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/bellhop-dev/bellhop/internal/wire"
)

// ForgetFired drops, in every queue, the fired pairs of events older than before. It is called once those events have left
// the stream and can't be delivered again.
func (c *Client) ForgetFired(ctx context.Context, before time.Time) error {
	queues, err := c.rdb.SMembers(ctx, wire.AllQueues).Result()
	if err != nil {
		return fmt.Errorf("list queues: %w", err)
	}
	var faults []error
	for _, queue := range queues {
		key := wire.FiredKey(queue)
		if err := c.rdb.ZRemRangeByScore(ctx, key, "-inf", "("+strconv.FormatInt(before.UnixMilli(), 10)).Err(); err != nil {
			faults = append(faults, fmt.Errorf("forget fired pairs of queue %q: %w", queue, err))
		}
	}
	return errors.Join(faults...)
}
