package queue

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/wire"
)

var (
	//go:embed aggregate.lua
	aggregateSource string
	//go:embed readset.lua
	readSetSource string
	//go:embed dropset.lua
	dropSetSource string

	aggregateScript = newScript(aggregateSource)
	readSetScript   = newScript(readSetSource)
	dropSetScript   = newScript(dropSetSource, awaitedSource)
)

// aggregationTime is how long a set may be worked on, asynq's. After it the jobs go back to their group.
const aggregationTime = 2 * time.Minute

// Grouping says when a group's jobs are aggregated. Whole seconds count, as in asynq.
type Grouping struct {
	Grace    time.Duration // nothing has come for this long
	MaxDelay time.Duration // the oldest job has waited for this long; zero: it may wait for ever
	MaxSize  int           // the group has so many jobs; zero: no limit
}

// Set is some jobs of a group that are to become one job.
type Set struct {
	Queue string
	Group string
	ID    string

	// After ReadSet.
	Messages []*wire.Message
	Deadline time.Time // of this process' clock, whatever Redis' says: afterwards the jobs go back to their group
}

// Aggregate looks at every group of a queue and makes sets of those that are ready. Sets that nobody finished in time are put
// back first.
func (c *Client) Aggregate(ctx context.Context, queue string, g Grouping) ([]Set, error) {
	reply, err := c.do(ctx, aggregateScript, []string{wire.AllGroups(queue), wire.AllAggregationSets(queue)},
		wire.GroupKey(queue, ""), g.MaxSize, int64(g.MaxDelay/time.Second), int64(g.Grace/time.Second),
		int(aggregationTime/time.Second), newSession()).StringSlice()
	if err == nil && len(reply)%2 != 0 {
		err = fmt.Errorf("%w: %d values", errUnexpected, len(reply))
	}
	if err != nil {
		return nil, fmt.Errorf("look at the groups of queue %q: %w", queue, err)
	}
	sets := make([]Set, 0, len(reply)/2)
	for i := 0; i < len(reply); i += 2 {
		sets = append(sets, Set{Queue: queue, Group: reply[i], ID: reply[i+1]})
	}
	return sets, nil
}

// ReadSet fills in a set's messages, the oldest first. Jobs whose message can't be decoded are set aside and left out.
func (c *Client) ReadSet(ctx context.Context, s *Set) error {
	asked := time.Now()
	reply, err := c.do(ctx, readSetScript, s.keys(), wire.JobPrefix(s.Queue)).StringSlice()
	if err == nil && len(reply)%2 != 1 {
		err = fmt.Errorf("%w: %d values", errUnexpected, len(reply))
	}
	if err != nil {
		return fmt.Errorf("read set %s of group %q: %w", s.ID, s.Group, err)
	}
	left, err := strconv.ParseInt(reply[0], 10, 64)
	if err != nil {
		return fmt.Errorf("read set %s of group %q: %w: %q", s.ID, s.Group, errUnexpected, reply[0])
	}
	s.Deadline = asked.Add(time.Duration(left) * time.Millisecond)
	s.Messages = s.Messages[:0]
	for i := 1; i < len(reply); i += 2 {
		msg, err := wire.Decode([]byte(reply[i+1]))
		if err == nil && msg.ID == reply[i] {
			s.Messages = append(s.Messages, msg)
			continue
		}
		if err := c.setAside(ctx, s, reply[i]); err != nil {
			return fmt.Errorf("set job %s of group %q aside: %w", reply[i], s.Group, err)
		}
	}
	return nil
}

func (c *Client) setAside(ctx context.Context, s *Set, id string) error {
	_, err := c.rdb.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.ZAdd(ctx, wire.UndecodableKey(s.Queue), redis.Z{Score: float64(time.Now().Unix()), Member: id})
		p.HSet(ctx, wire.JobKey(s.Queue, id), "state", "undecodable")
		p.ZRem(ctx, s.keys()[0], id)
		return nil
	})
	return err
}

// DropSet deletes a set's jobs, once the job that they became is stored. It says false if the set was given up meanwhile.
func (c *Client) DropSet(ctx context.Context, s *Set) (bool, error) {
	args := []any{wire.JobPrefix(s.Queue)}
	for _, m := range s.Messages {
		if lock := (&Job{Queue: s.Queue, Message: m}).uniqueKey(); lock != "" {
			args = append(args, m.ID, lock)
		}
	}
	n, err := c.do(ctx, dropSetScript, append(s.keys(), wire.AwaitedKey(s.Queue)), args...).Int()
	if err != nil {
		return false, fmt.Errorf("drop set %s of group %q: %w", s.ID, s.Group, err)
	}
	return n > 0, nil
}

func (s *Set) keys() []string {
	return []string{wire.AggregationSetKey(s.Queue, s.Group, s.ID), wire.AllAggregationSets(s.Queue)}
}
