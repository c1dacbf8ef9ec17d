package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/wire"
)

// Job is where a job stands.
type Job struct {
	ID        string    `json:"id"`
	Task      string    `json:"task"`
	Queue     string    `json:"queue"`
	State     string    `json:"state"` // pending, active, scheduled, retry, archived (dead), completed, aggregating
	Retried   int       `json:"retried"`
	MaxRetry  int       `json:"max_retry"`
	LastError string    `json:"last_error,omitempty"`
	NextAt    time.Time `json:"next_at,omitzero"`
	Payload   []byte    `json:"-"`
	Result    []byte    `json:"-"`
}

// Dead tells that the job will not run again by itself.
func (j Job) Dead() bool { return j.State == asynq.TaskStateArchived.String() }

// Completed tells that the job succeeded and is kept.
func (j Job) Completed() bool { return j.State == asynq.TaskStateCompleted.String() }

// ErrNoJob tells that a job is not in Redis: it was never there, is done and not kept, or was deleted.
var ErrNoJob = errors.New("no such job")

// Job looks a job up. The inspector that it asks takes no context; its Redis client's time-outs bound the call.
func (c *Client) Job(_ context.Context, queue, id string) (Job, error) {
	info, err := c.inspector.GetTaskInfo(queue, id)
	if errors.Is(err, asynq.ErrTaskNotFound) || errors.Is(err, asynq.ErrQueueNotFound) {
		return Job{}, fmt.Errorf("job %s in queue %s: %w", id, queue, ErrNoJob)
	}
	if err != nil {
		return Job{}, fmt.Errorf("look up job %s in queue %s: %w", id, queue, err)
	}
	return Job{
		ID: info.ID, Task: info.Type, Queue: info.Queue, State: info.State.String(),
		Retried: info.Retried, MaxRetry: info.MaxRetry, LastError: info.LastErr, NextAt: info.NextProcessAt,
		Payload: info.Payload, Result: info.Result,
	}, nil
}

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
