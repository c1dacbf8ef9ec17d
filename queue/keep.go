package queue

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/wire"
)

var (
	//go:embed clean.lua
	cleanSource string
	//go:embed pass.lua
	passSource string

	cleanScript = newScript(cleanSource, marksSource, leasesSource)
	passScript  = newScript(passSource)
)

const (
	// cleanInterval is how often a queue's keeper removes what has expired.
	cleanInterval = 30 * time.Second

	// cleanBatch is the most jobs of a kind that one call removes.
	cleanBatch = 500

	// dueInterval is how often a keeper looks for jobs that stock producers scheduled: they ring no alarm. It counts only for
	// those that are due sooner than this; stock servers look every 5 s.
	dueInterval = 5 * time.Second
)

// Cleaned is the answer to Clean.
type Cleaned struct {
	Completed int  // jobs removed whose retention was over
	Dead      int  // archived jobs removed: older than 90 days, or more than 9,999
	Orphans   int  // leases removed whose job is gone
	Back      int  // jobs given back to pending whose worker let their lease end
	More      bool // there may be more: call again
}

// Clean removes what has expired from a queue, some hundred jobs a call. Any worker may call it at any time.
func (c *Client) Clean(ctx context.Context, queue string) (Cleaned, error) {
	keys := []string{
		wire.CompletedKey(queue), wire.ArchivedKey(queue), wire.LeaseKey(queue), wire.ActiveKey(queue), wire.MarksKey(queue),
		wire.PendingKey(queue), wire.BeatsKey(queue), wire.CallsKey(queue),
	}
	reply, err := c.do(ctx, cleanScript, keys, wire.JobPrefix(queue), cleanBatch).Int64Slice()
	if err == nil && len(reply) != 5 {
		err = fmt.Errorf("%w: %d values", errUnexpected, len(reply))
	}
	if err != nil {
		return Cleaned{}, fmt.Errorf("clean queue %q: %w", queue, err)
	}
	return Cleaned{Completed: int(reply[0]), Dead: int(reply[1]), Orphans: int(reply[2]), Back: int(reply[3]), More: reply[4] == 1}, nil
}

// Kept is what a keeper has just done for its queue.
type Kept struct {
	Queue   string
	Dued    Dued
	Cleaned Cleaned
	Err     error
}

// Keep moves the queue's due jobs at their millisecond and removes what has expired, until ctx or the Waiter ends. Run it
// while Beat says that the worker keeps the queue; two keepers at once do no harm. It reports what it did and what failed, and
// goes on.
func (t *Waiter) Keep(ctx context.Context, queue string, report func(Kept)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.ctx, cancel)()
	alarm := t.alarm(ctx, queue)
	var cleaned time.Time
	for ctx.Err() == nil {
		dued, err := t.worker.client.Due(ctx, queue)
		kept := Kept{Queue: queue, Dued: dued, Err: err}
		more := err == nil && dued.Next == 0
		if !more && time.Since(cleaned) >= cleanInterval {
			cleaned = time.Now()
			var fault error
			kept.Cleaned, fault = t.worker.client.cleanAll(ctx, queue)
			kept.Err = errors.Join(err, fault)
		}
		if ctx.Err() == nil && kept != (Kept{Queue: queue, Dued: Dued{Next: dued.Next, Now: dued.Now}}) {
			report(kept)
		}
		if more {
			continue
		}
		nap(ctx, alarm, dued.Next, err)
	}
}

func (c *Client) cleanAll(ctx context.Context, queue string) (Cleaned, error) {
	var sum Cleaned
	for {
		some, err := c.Clean(ctx, queue)
		sum.Completed += some.Completed
		sum.Dead += some.Dead
		sum.Orphans += some.Orphans
		sum.Back += some.Back
		if err != nil || !some.More {
			return sum, err
		}
	}
}

// nap sleeps until the next job is due, an earlier one comes, or stock producers may have scheduled one.
func nap(ctx context.Context, alarm <-chan struct{}, next time.Duration, err error) {
	d := dueInterval
	if err != nil {
		d = retryTime
	} else if next > 0 && next < d {
		d = next
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-alarm:
	case <-ctx.Done():
	}
}

// alarm rings when a job was written that is due before all others.
func (t *Waiter) alarm(ctx context.Context, queue string) <-chan struct{} {
	rings := make(chan struct{}, 1)
	go func() {
		for ctx.Err() == nil {
			err := t.rdb.BLPop(ctx, blockTime, wire.AlarmKey(queue)).Err()
			switch {
			case err == nil && ctx.Err() != nil:
				t.putBack(ctx, queue)
			case err == nil:
				select {
				case rings <- struct{}{}:
				default: // one ring is enough
				}
			case errors.Is(err, redis.ErrClosed):
				return
			case !errors.Is(err, redis.Nil):
				nap(ctx, nil, retryTime, nil)
			}
		}
	}()
	return rings
}

// putBack leaves an alarm to the next keeper: who has stopped keeping stands in line until its command's time is over, before the
// new one.
func (t *Waiter) putBack(ctx context.Context, queue string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pollTime) // the keeping has ended, the alarm has not
	defer cancel()
	_ = t.worker.client.rdb.LPush(ctx, wire.AlarmKey(queue), "1").Err() // lost, it comes with the next look, dueInterval later at most
}
