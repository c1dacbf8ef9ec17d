package queue

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/bellhop-dev/bellhop/internal/wire"
)

//go:embed reap.lua
var reapSource string

var reapScript = newScript(reapSource)

// LastBeat is when a worker last beat for a queue.
type LastBeat struct {
	Worker string
	At     time.Time // of Redis' clock, to the millisecond
}

// Beats lists the workers of a queue, the most silent first. A worker that holds no job of the queue beats every 5 s, the
// others every second.
func (c *Client) Beats(ctx context.Context, queue string) ([]LastBeat, error) {
	zs, err := c.rdb.ZRangeWithScores(ctx, wire.BeatsKey(queue), 0, -1).Result()
	if err != nil {
		return nil, fmt.Errorf("list workers of queue %q: %w", queue, err)
	}
	beats := make([]LastBeat, len(zs))
	for i, z := range zs {
		name, _ := z.Member.(string)
		beats[i] = LastBeat{Worker: name, At: time.UnixMilli(int64(z.Score))}
	}
	return beats, nil
}

// Reaped is a job that was taken from a dead worker.
type Reaped struct {
	ID          string
	Attempt     int64 // the one that died
	Crashes     int   // of this job so far
	Quarantined bool  // it is archived, for it had as many crashes as it may; else it is pending again
}

// Reap gives the jobs of a dead worker back to the head of the queue, without spending a retry, and forgets the worker. It does
// nothing, and returns alive, if the worker has beaten since beat was seen: whoever judges must have watched it stand still.
//
// maxCrashes is how many crashes quarantine a job, if it was the only suspect of its process at the last one. It is 0 for a worker
// that has not crashed, but stands still: then nothing is counted.
func (c *Client) Reap(ctx context.Context, queue string, beat LastBeat, maxCrashes int) (jobs []Reaped, alive bool, err error) {
	keys := []string{
		wire.PendingKey(queue), wire.ActiveKey(queue), wire.LeaseKey(queue), wire.OwnersKey(queue), wire.BeatsKey(queue),
		wire.CallsKey(queue), wire.KeeperKey(queue), wire.WatchKey(queue), wire.WatcherKey(queue), wire.SuspectsKey(queue),
		wire.ArchivedKey(queue), wire.ProcessedTotalKey(queue), wire.FailedTotalKey(queue),
	}
	for {
		reply, err := c.do(ctx, reapScript, keys, wire.JobPrefix(queue), beat.Worker, beat.At.UnixMilli(),
			int(leaseTime/time.Second), MaxBatch, maxCrashes).Slice()
		if err == nil && (len(reply) < 2 || len(reply)%4 != 2) {
			err = fmt.Errorf("%w: %d values", errUnexpected, len(reply))
		}
		if err != nil {
			return jobs, false, fmt.Errorf("reap worker %s of queue %q: %w", beat.Worker, queue, err)
		}
		if reply[0] != int64(1) {
			return jobs, true, nil
		}
		for i := 2; i < len(reply); i += 4 {
			id, _ := reply[i].(string)
			attempt, _ := reply[i+1].(int64)
			crashes, _ := reply[i+2].(int64)
			jobs = append(jobs, Reaped{ID: id, Attempt: attempt, Crashes: int(crashes), Quarantined: reply[i+3] == int64(1)})
		}
		if reply[1] == int64(0) {
			return jobs, false, nil
		}
	}
}
