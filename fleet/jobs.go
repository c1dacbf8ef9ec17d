package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

// Job is where a job stands.
type Job struct {
	ID        string    `json:"id"`
	Task      string    `json:"task"`
	Queue     string    `json:"queue"`
	State     string    `json:"state"` // pending, active, scheduled, retry, archived (dead), completed, aggregating, undecodable
	Retried   int       `json:"retried"`
	MaxRetry  int       `json:"max_retry"`
	LastError string    `json:"last_error,omitempty"`
	NextAt    time.Time `json:"next_at,omitzero"` // of a scheduled or retrying job
	Payload   []byte    `json:"-"`
	Result    []byte    `json:"-"`

	// ResultCut tells that there was a result, of more than queue.LongestTold bytes, which is lost: the job is not kept.
	ResultCut bool `json:"result_cut,omitempty"`
}

const (
	archived    = "archived"
	completed   = "completed"
	undecodable = "undecodable"
)

// Dead tells that the job will not run again by itself.
func (j Job) Dead() bool { return j.State == archived || j.State == undecodable }

// Completed tells that the job succeeded.
func (j Job) Completed() bool { return j.State == completed }

// ErrNoJob tells that a job is not in Redis: it was never there, is done and not kept, or was deleted.
var ErrNoJob = errors.New("no such job")

// ErrAmbiguous tells that several queues have a job of the same id.
var ErrAmbiguous = errors.New("several queues have a job with this id")

// Job looks a job up. It fails with ErrNoJob if it isn't there.
func (c *Client) Job(ctx context.Context, queueName, id string) (Job, error) {
	standings, err := c.queue.Look(ctx, "", queue.Ref{Queue: queueName, ID: id})
	if err != nil {
		return Job{}, fmt.Errorf("look up job %s in queue %s: %w", id, queueName, err)
	}
	if standings[0].State == "" {
		return Job{}, noJob(queueName, id)
	}
	return newJob(queueName, id, standings[0]), nil
}

func noJob(queueName, id string) error {
	return fmt.Errorf("job %s in queue %s: %w", id, queueName, ErrNoJob)
}

func newJob(queueName, id string, s queue.Standing) Job {
	j := Job{ID: id, Queue: queueName, State: s.State, NextAt: s.Next, Result: s.Result}
	j.read(s.Message)
	return j
}

// read fills in what the message tells.
func (j *Job) read(m *wire.Message) {
	if m == nil {
		j.LastError = "its message can't be decoded"
		return
	}
	j.Task, j.Payload, j.Retried, j.MaxRetry, j.LastError = m.Type, m.Payload, m.Retried, m.Retry, m.ErrorMsg
}

// Find looks a job up in every known queue, in one round trip. It fails with ErrNoJob if none has it, and with ErrAmbiguous if several
// have a job of that id, which names them.
func (c *Client) Find(ctx context.Context, id string) (Job, error) {
	queues, err := c.rdb.SMembers(ctx, wire.AllQueues).Result()
	if err != nil {
		return Job{}, fmt.Errorf("find job %s: %w", id, err)
	}
	refs := make([]queue.Ref, len(queues))
	for i, name := range queues {
		refs[i] = queue.Ref{Queue: name, ID: id}
	}
	standings, err := c.queue.Look(ctx, "", refs...)
	if err != nil {
		return Job{}, fmt.Errorf("find job %s: %w", id, err)
	}
	var found []Job
	for i, s := range standings {
		if s.State != "" {
			found = append(found, newJob(queues[i], id, s))
		}
	}
	switch len(found) {
	case 0:
		return Job{}, fmt.Errorf("job %s in any of %d queues: %w", id, len(queues), ErrNoJob)
	case 1:
		return found[0], nil
	}
	var in []string
	for _, j := range found {
		in = append(in, j.Queue)
	}
	slices.Sort(in)
	return Job{}, fmt.Errorf("job %s: %w: name one of %s", id, ErrAmbiguous, strings.Join(in, ", "))
}
