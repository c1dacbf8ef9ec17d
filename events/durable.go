package events

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// ErrNotReplicated says that the event is stored, but not on as many replicas as Config.Replicas asks for: a failover may lose it.
// Publish it again with the same source and id: a duplicate asks the replicas too.
var ErrNotReplicated = errors.New("stored, but not confirmed by enough replicas")

// runPublish runs the script, and asks the replicas if it is told to. unconfirmed tells that too few of them have what was stored.
func (c *Client) runPublish(ctx context.Context, keys []string, args []any) (answers []any, unconfirmed, err error) {
	if c.cfg.Replicas == 0 {
		answers, err = publishScript.Run(ctx, c.rdb, keys, args...).Slice()
		return answers, nil, err
	}
	// WAIT counts for what its connection has written: it goes with the script, which must be there by then.
	if err := publishScript.Load(ctx, c.rdb).Err(); err != nil {
		return nil, nil, err
	}
	var stored, confirmed *redis.Cmd
	_, _ = c.rdb.Pipelined(ctx, func(p redis.Pipeliner) error { // each command has its own error
		stored = publishScript.EvalSha(ctx, p, keys, args...)
		confirmed = p.Do(ctx, "WAIT", c.cfg.Replicas, c.cfg.ReplicasWithin.Milliseconds())
		return nil
	})
	answers, err = stored.Slice()
	if err != nil {
		return nil, nil, err
	}
	switch n, err := confirmed.Int64(); {
	case err != nil:
		unconfirmed = fmt.Errorf("%w: %w", ErrNotReplicated, err)
	case n < int64(c.cfg.Replicas):
		unconfirmed = fmt.Errorf("%w: %d of %d", ErrNotReplicated, n, c.cfg.Replicas)
	}
	return answers, unconfirmed, nil
}
