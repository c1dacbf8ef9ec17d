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

//go:embed reap.lua
var reapSource string

var reapScript = newScript(reapSource, sharedSource, countSource, marksSource, leasesSource, awaitedSource)

// reap.lua's words for a worker that was not reaped.
const (
	beatsOn      = 0
	reapedBefore = 2
)

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
	Crashes     int  // of this job so far
	Quarantined bool // it is archived, for it had as many crashes as it may; else it is pending again
}

// Reap gives the jobs of a dead worker back to the head of the queue, without spending a retry, and forgets the worker. It does
// nothing, and returns alive, if the worker has beaten since beat was seen: whoever judges must have watched it stand still.
//
// maxCrashes is how many crashes quarantine a job, if it was the only suspect of its process, or its only job, at the last one: in any
// queue. It is 0 for a worker
// that has not crashed, but stands still: then nothing is counted.
func (c *Client) Reap(ctx context.Context, queue string, beat LastBeat, maxCrashes int) (jobs []Reaped, alive bool, err error) {
	keys := []string{
		wire.PendingKey(queue), wire.ActiveKey(queue), wire.LeaseKey(queue), wire.MarksKey(queue), wire.BeatsKey(queue),
		wire.CallsKey(queue), wire.KeeperKey(queue), wire.WatchKey(queue), wire.WatcherKey(queue), wire.SuspectsKey(queue),
		wire.ArchivedKey(queue), wire.ProcessedTotalKey(queue), wire.FailedTotalKey(queue), wire.AwaitedKey(queue),
	}
	held, err := c.inventory(ctx, beat.Worker)
	if err != nil {
		return nil, false, fmt.Errorf("reap worker %s of queue %q: %w", beat.Worker, queue, err)
	}
	for {
		reply, err := c.do(ctx, reapScript, keys, wire.JobPrefix(queue), beat.Worker, beat.At.UnixMilli(),
			MaxBatch, maxCrashes, held.jobs, held.suspects).Slice()
		if err == nil && (len(reply) < 2 || len(reply)%3 != 2) {
			err = fmt.Errorf("%w: %d values", errUnexpected, len(reply))
		}
		if err != nil {
			return jobs, false, fmt.Errorf("reap worker %s of queue %q: %w", beat.Worker, queue, err)
		}
		switch reply[0] {
		case int64(reapedBefore):
			return jobs, true, nil
		case int64(beatsOn):
			// What was noted of it is of no use at its death.
			return jobs, true, c.rdb.Del(ctx, wire.HoldingsKey(beat.Worker)).Err()
		}
		for i := 2; i < len(reply); i += 3 {
			id, _ := reply[i].(string)
			crashes, _ := reply[i+1].(int64)
			jobs = append(jobs, Reaped{ID: id, Crashes: int(crashes), Quarantined: reply[i+2] == int64(1)})
		}
		if reply[1] == int64(0) {
			return jobs, false, nil
		}
	}
}

// holdings is what a worker held, in all its queues.
type holdings struct{ jobs, suspects int }

// holdingsTime is how long they are noted: the queues of a dead worker are reaped within seconds of each other.
const holdingsTime = time.Minute

// inventory tells what a dead worker held before the first of its queues was reaped, by whomever: the note is written once, and all
// who reap go by it.
func (c *Client) inventory(ctx context.Context, worker string) (holdings, error) {
	key := wire.HoldingsKey(worker)
	if h, err := c.noted(ctx, key); !errors.Is(err, redis.Nil) {
		return h, err
	}
	h, err := c.holdings(ctx, worker)
	if err != nil {
		return h, fmt.Errorf("count what it held: %w", err)
	}
	err = c.rdb.SetNX(ctx, key, fmt.Sprintf("%d %d", h.jobs, h.suspects), holdingsTime).Err()
	switch {
	case redis.HasErrorPrefix(err, "OOM"):
		return h, nil // a full Redis takes no note; the jobs must go back all the same
	case err != nil:
		return h, fmt.Errorf("note what it held: %w", err)
	}
	return c.noted(ctx, key)
}

func (c *Client) noted(ctx context.Context, key string) (holdings, error) {
	var h holdings
	text, err := c.rdb.Get(ctx, key).Result()
	if err != nil {
		return h, err
	}
	_, err = fmt.Sscanf(text, "%d %d", &h.jobs, &h.suspects)
	return h, err
}

// holdings counts a worker's jobs in every queue that it beats for.
func (c *Client) holdings(ctx context.Context, worker string) (holdings, error) {
	queues, err := c.rdb.SMembers(ctx, wire.AllQueues).Result()
	if err != nil {
		return holdings{}, err
	}
	beats := make([]*redis.FloatCmd, len(queues))
	if err := c.pipelined(ctx, len(queues), func(p redis.Pipeliner, i int) { beats[i] = p.ZScore(ctx, wire.BeatsKey(queues[i]), worker) }); err != nil {
		return holdings{}, err
	}
	served := queues[:0]
	for i, queue := range queues {
		if beats[i].Err() == nil {
			served = append(served, queue)
		}
	}
	numbers := make([]*redis.StringCmd, len(served))
	leases := make([]*redis.ZSliceCmd, len(served))
	if err := c.pipelined(ctx, len(served), func(p redis.Pipeliner, i int) {
		numbers[i] = p.HGet(ctx, wire.MarksKey(served[i]), worker)
		leases[i] = p.ZRangeWithScores(ctx, wire.LeaseKey(served[i]), 0, -1)
	}); err != nil {
		return holdings{}, err
	}
	var jobs []string
	for i, queue := range served {
		number := wire.MarkNumber(numbers[i].Val())
		if number == 0 {
			continue // it has never fetched there
		}
		for _, z := range leases[i].Val() {
			if id, _ := z.Member.(string); wire.LeaseMark(z.Score).Worker() == number {
				jobs = append(jobs, wire.JobKey(queue, id))
			}
		}
	}
	suspects := make([]*redis.BoolCmd, len(jobs))
	if err := c.pipelined(ctx, len(jobs), func(p redis.Pipeliner, i int) { suspects[i] = p.HExists(ctx, jobs[i], "bellhop_suspect") }); err != nil {
		return holdings{}, err
	}
	h := holdings{jobs: len(jobs)}
	for _, suspect := range suspects {
		if suspect.Val() {
			h.suspects++
		}
	}
	return h, nil
}

// pipelined sends n commands in one round trip. What is not there is no error.
func (c *Client) pipelined(ctx context.Context, n int, add func(p redis.Pipeliner, i int)) error {
	cmds, err := c.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range n {
			add(p, i)
		}
		return nil
	})
	for _, cmd := range cmds {
		if err := cmd.Err(); err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
	}
	if errors.Is(err, redis.Nil) {
		return nil
	}
	return err
}
