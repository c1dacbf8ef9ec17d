package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/job"
)

// Task is what the registry holds of a task: enough to enqueue it without having been compiled with it.
type Task struct {
	job.Definition
	Build   string    `json:"build"` // of the worker that wrote it last
	Written time.Time `json:"written"`
}

// Register writes the tasks that a worker serves. The newest writer wins.
func (c *Client) Register(ctx context.Context, build string, definitions []job.Definition) error {
	if len(definitions) == 0 {
		return nil
	}
	now := time.Now().UTC()
	fields := make([]any, 0, 2*len(definitions))
	for _, d := range definitions {
		record, err := json.Marshal(Task{Definition: d, Build: build, Written: now})
		if err != nil {
			return fmt.Errorf("register task %s: %w", d.Name, err)
		}
		fields = append(fields, d.Name, record)
	}
	if err := c.rdb.HSet(ctx, tasksKey, fields...).Err(); err != nil {
		return fmt.Errorf("register tasks: %w", err)
	}
	return nil
}

// Tasks are all the tasks that workers have registered, by name.
func (c *Client) Tasks(ctx context.Context) ([]Task, error) {
	records, err := c.rdb.HGetAll(ctx, tasksKey).Result()
	if err != nil {
		return nil, fmt.Errorf("list tasks: %w", err)
	}
	tasks := make([]Task, 0, len(records))
	for name, record := range records {
		var t Task
		if err := json.Unmarshal([]byte(record), &t); err != nil {
			return nil, fmt.Errorf("read the record of task %s: %w", name, err)
		}
		tasks = append(tasks, t)
	}
	slices.SortFunc(tasks, func(a, b Task) int { return strings.Compare(a.Name, b.Name) })
	return tasks, nil
}

// ErrUnknownTask tells that no worker has registered a task.
var ErrUnknownTask = errors.New("no worker has registered this task")

// Task is one of the registry's, ErrUnknownTask if it isn't there.
func (c *Client) Task(ctx context.Context, name string) (Task, error) {
	record, err := c.rdb.HGet(ctx, tasksKey, name).Bytes()
	if errors.Is(err, redis.Nil) {
		return Task{}, fmt.Errorf("%s: %w", name, ErrUnknownTask)
	}
	if err != nil {
		return Task{}, fmt.Errorf("look up task %s: %w", name, err)
	}
	var t Task
	if err := json.Unmarshal(record, &t); err != nil {
		return Task{}, fmt.Errorf("read the record of task %s: %w", name, err)
	}
	return t, nil
}
