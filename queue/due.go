package queue

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/bellhop-dev/bellhop/internal/wire"
)

//go:embed due.lua
var dueSource string

var dueScript = newScript(dueSource)

// dueBatch is the most jobs that one call moves.
const dueBatch = 500

// Dued is the answer to Due.
type Dued struct {
	Moved   int // jobs that are pending now, or wait in their group
	Orphans int // ids without a body: dropped

	// Next is how long it is until the next job is due, by Redis' clock: 0 if there are more at once, negative if there is none.
	Next time.Duration
	Now  time.Time // of Redis' clock
}

// Due moves the scheduled and retrying jobs of a queue whose time has come to pending, the most overdue first. Any worker may call it at
// any time; one for the fleet is enough.
func (c *Client) Due(ctx context.Context, queue string) (Dued, error) {
	keys := []string{wire.ScheduledKey(queue), wire.RetryKey(queue), wire.PendingKey(queue), wire.AllGroups(queue), wire.DueKey(queue)}
	reply, err := c.do(ctx, dueScript, keys, wire.JobPrefix(queue), wire.GroupKey(queue, ""), dueBatch).Int64Slice()
	if err == nil && len(reply) != 5 {
		err = fmt.Errorf("%w: %d values", errUnexpected, len(reply))
	}
	if err != nil {
		return Dued{}, fmt.Errorf("move due jobs of queue %q: %w", queue, err)
	}
	next := time.Duration(reply[4]) * time.Millisecond
	if reply[4] > 0 {
		// The script's clock stands still at a whole millisecond; what is due in the next one is due a part of it sooner.
		next -= time.Duration(reply[1]%1000) * time.Microsecond
	}
	return Dued{Moved: int(reply[2]), Orphans: int(reply[3]), Next: next, Now: clock(reply[0], reply[1])}, nil
}
