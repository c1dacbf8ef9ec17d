package worker_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/worker"
)

// counts counts runs by job.
type counts struct {
	mu   sync.Mutex
	runs map[string]int
}

func (c *counts) add(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.runs == nil {
		c.runs = make(map[string]int)
	}
	c.runs[key]++
}

func (c *counts) total() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, runs := range c.runs {
		n += runs
	}
	return n
}

// Two producers and two fleets, ours and stock asynq's, on one queue: every job runs once, whoever wrote it and whoever takes it.
func TestMixedFleet(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{worker.EngineBellhop, worker.EngineAsynq} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, redistest.New(t), engine)
			stockClient := asynq.NewClientFromRedisClient(b.rdb)

			var ours, theirs, all counts
			stock := asynq.NewServerFromRedisClient(b.rdb, asynq.Config{
				Concurrency: 4, TaskCheckInterval: 20 * time.Millisecond, LogLevel: asynq.ErrorLevel,
			})
			if err := stock.Start(asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
				id, _ := asynq.GetTaskID(ctx)
				theirs.add(id)
				all.add(id)
				return nil
			})); err != nil {
				t.Fatal(err)
			}
			defer stock.Shutdown()
			b.start(b.config(), echo.HandledBy(func(ctx context.Context, _ payload) error {
				j, _ := job.FromContext(ctx)
				ours.add(j.ID)
				all.add(j.ID)
				return nil
			}))

			const each = 1000
			var producers sync.WaitGroup
			producers.Go(func() {
				for n := range each {
					if _, err := echo.Enqueue(t.Context(), b.client, payload{N: n}, job.ID(fmt.Sprint("ours-", n))); err != nil {
						t.Error(err)
					}
				}
			})
			producers.Go(func() {
				for n := range each {
					if _, err := stockClient.Enqueue(asynq.NewTask("echo", []byte(`{"n":1}`)), asynq.TaskID(fmt.Sprint("stock-", n))); err != nil {
						t.Error(err)
					}
				}
			})
			producers.Wait()
			b.eventually("the queue is empty", func() bool {
				q, err := b.inspector.GetQueueInfo("default")
				return err == nil && q.Size == 0 && q.Processed == 2*each
			})
			if len(all.runs) != 2*each || all.total() != 2*each {
				t.Errorf("%d jobs ran %d times, want %d once each", len(all.runs), all.total(), 2*each)
			}
			if ours.total() == 0 || theirs.total() == 0 {
				t.Errorf("one fleet took nothing: ours %d, stock %d", ours.total(), theirs.total())
			}
		})
	}
}

// The stock inspector steers jobs that our client stored, and counts them right.
func TestInspectorSteersOurJobs(t *testing.T) {
	t.Parallel()
	b := newBench(t, redistest.New(t), worker.EngineAsynq)
	var pending, scheduled []*job.Info
	for n := range 3 {
		pending = append(pending, b.enqueue(n))
		scheduled = append(scheduled, b.enqueue(n, job.In(time.Hour)))
	}
	q, err := b.inspector.GetQueueInfo("default")
	if err != nil || q.Size != 6 || q.Pending != 3 || q.Scheduled != 3 {
		t.Fatalf("%+v, %v", q, err)
	}
	list, err := b.inspector.ListScheduledTasks("default")
	if err != nil || len(list) != 3 || list[0].Type != "echo" {
		t.Fatalf("listed %v, %v", list, err)
	}

	for what, err := range map[string]error{
		"run":     b.inspector.RunTask("default", scheduled[0].ID),
		"archive": b.inspector.ArchiveTask("default", pending[0].ID),
		"delete":  b.inspector.DeleteTask("default", scheduled[1].ID),
		"pause":   b.inspector.PauseQueue("default"),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for info, want := range map[*job.Info]string{scheduled[0]: "pending", pending[0]: "archived", scheduled[1]: "gone", scheduled[2]: "scheduled"} {
		if got := b.state(info); got != want {
			t.Errorf("a job is %s, want %s", got, want)
		}
	}
	if q, err = b.inspector.GetQueueInfo("default"); err != nil || !q.Paused || q.Pending != 3 || q.Archived != 1 || q.Scheduled != 1 {
		t.Errorf("%+v, %v", q, err)
	}

	ran := make(chan string, 8)
	b.start(b.config(), echo.HandledBy(func(ctx context.Context, _ payload) error {
		j, _ := job.FromContext(ctx)
		ran <- j.ID
		return nil
	}))
	if err := b.inspector.UnpauseQueue("default"); err != nil {
		t.Fatal(err)
	}
	if err := b.inspector.RunTask("default", pending[0].ID); err != nil {
		t.Errorf("run an archived job: %v", err)
	}
	for range 4 {
		receive(b, ran)
	}
	b.eventually("the counters are right", func() bool {
		q, err := b.inspector.GetQueueInfo("default")
		return err == nil && q.Processed == 4 && q.Failed == 0 && q.Size == 1
	})
	servers, err := b.inspector.Servers()
	if err != nil || len(servers) != 1 || servers[0].Concurrency != 4 {
		t.Errorf("the worker list: %v, %v", servers, err)
	}
}
