package queue_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

// asynq.Inspector lists and counts what we wrote in every state.
func TestInspectorSeesOurJobs(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		i := asynq.NewInspectorFromRedisClient(rdb)
		kept := message("completed")
		kept.Retention = 600
		grouped := message("aggregating")
		grouped.GroupKey = "digest"
		at := b.now().Add(90*time.Minute + 500*time.Millisecond)
		b.store(
			queue.Entry{Message: kept}, queue.Entry{Message: grouped}, queue.Entry{Message: message("scheduled"), At: at},
			queue.Entry{Message: message("retry")}, queue.Entry{Message: message("archived")}, queue.Entry{Message: message("done")},
			queue.Entry{Message: message("active")}, queue.Entry{Message: message("pending")},
		)
		jobs := b.fetch(5).Jobs
		b.finish(queue.Complete(jobs[0], []byte("42")), queue.Retry(jobs[1], time.Hour, "boom"), queue.Archive(jobs[2], "dead"), queue.Done(jobs[3]))

		info, err := i.GetQueueInfo(q)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]int{
			"pending": info.Pending, "active": info.Active, "scheduled": info.Scheduled, "retry": info.Retry, "archived": info.Archived,
			"completed": info.Completed, "aggregating": info.Aggregating, "size": info.Size,
			"processed": info.Processed, "failed": info.Failed, "processed total": info.ProcessedTotal, "failed total": info.FailedTotal,
		}
		want := map[string]int{
			"pending": 1, "active": 1, "scheduled": 1, "retry": 1, "archived": 1, "completed": 1, "aggregating": 1, "size": 7,
			"processed": 4, "failed": 2, "processed total": 4, "failed total": 2,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if info.Latency < 0 || info.Latency > time.Minute {
			t.Errorf("latency %s", info.Latency)
		}
		for state, list := range map[string]func() ([]*asynq.TaskInfo, error){
			"pending":     func() ([]*asynq.TaskInfo, error) { return i.ListPendingTasks(q) },
			"active":      func() ([]*asynq.TaskInfo, error) { return i.ListActiveTasks(q) },
			"scheduled":   func() ([]*asynq.TaskInfo, error) { return i.ListScheduledTasks(q) },
			"retry":       func() ([]*asynq.TaskInfo, error) { return i.ListRetryTasks(q) },
			"archived":    func() ([]*asynq.TaskInfo, error) { return i.ListArchivedTasks(q) },
			"completed":   func() ([]*asynq.TaskInfo, error) { return i.ListCompletedTasks(q) },
			"aggregating": func() ([]*asynq.TaskInfo, error) { return i.ListAggregatingTasks(q, "digest") },
		} {
			tasks, err := list()
			if err != nil || len(tasks) != 1 || tasks[0].ID != state || tasks[0].State.String() != state {
				t.Errorf("%s: %v, %v", state, tasks, err)
				continue
			}
			one, err := i.GetTaskInfo(q, state)
			if err != nil {
				t.Errorf("%s: %v", state, err)
				continue
			}
			switch state {
			case "active":
				if tasks[0].IsOrphaned {
					t.Error("a running job is shown as orphaned")
				}
			case "completed":
				if string(one.Result) != "42" || one.CompletedAt.IsZero() {
					t.Errorf("%+v", one)
				}
			case "scheduled":
				if d := one.NextProcessAt.Sub(at); d < 0 || d > time.Second {
					t.Errorf("shown %s after its time", d)
				}
			case "retry":
				if one.LastErr != "boom" || one.Retried != 1 || one.LastFailedAt.IsZero() {
					t.Errorf("%+v", one)
				}
			}
		}
	})
}

// People work on our jobs with asynq's tools, and we go on.
func TestInspectorSteersOurJobs(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		i := asynq.NewInspectorFromRedisClient(rdb)
		b.enqueue("retry", "dead", "pending")
		jobs := b.fetch(2).Jobs
		b.finish(queue.Retry(jobs[0], time.Hour, "boom"), queue.Archive(jobs[1], "dead"))
		b.schedule("scheduled", b.now().Add(time.Hour))

		for what, err := range map[string]error{
			"pause": i.PauseQueue(q), "run retry": i.RunTask(q, "retry"), "run dead": i.RunTask(q, "dead"), "run scheduled": i.RunTask(q, "scheduled"),
			"archive pending": i.ArchiveTask(q, "pending"),
		} {
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		if got := b.fetch(5); !got.Paused || len(got.Jobs) != 0 {
			t.Errorf("%+v", got)
		}
		if err := i.UnpauseQueue(q); err != nil {
			t.Error(err)
		}
		got := b.fetch(5).Jobs
		if len(got) != 3 {
			t.Errorf("took %v", idsOf(got))
		}
		if err := i.DeleteTask(q, got[0].ID); err == nil {
			t.Error("a running job was deleted")
		}
		for _, job := range got {
			b.finish(queue.Done(job))
		}
		if err := i.DeleteTask(q, "pending"); err != nil {
			t.Error(err)
		}
		b.atRest()
		if left := rdb.Keys(b.ctx, wire.JobPrefix(q)+"*").Val(); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	})
}

// A stock server and our worker on one queue: each job runs once, whoever wrote it.
func TestBothFleetsShareAQueue(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	b := setup(t, server.Client())
	const n = 300
	var mu sync.Mutex
	runs := make(map[string]int)
	ran := func(id string) {
		mu.Lock()
		defer mu.Unlock()
		runs[id]++
	}
	total := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(runs)
	}
	theirs := asynq.NewServer(asynq.RedisClientOpt{Addr: server.Addr()}, asynq.Config{
		Concurrency: 4, Queues: map[string]int{q: 1}, LogLevel: asynq.FatalLevel, TaskCheckInterval: 200 * time.Millisecond,
	})
	if err := theirs.Start(asynq.HandlerFunc(func(ctx context.Context, _ *asynq.Task) error {
		id, _ := asynq.GetTaskID(ctx)
		ran(id)
		if len(id)%2 == 0 && total()%5 == 0 {
			return errors.New("boom") // into retry: not seen again within this test
		}
		return nil
	})); err != nil {
		t.Fatal(err)
	}
	client := asynq.NewClientFromRedisClient(b.rdb)
	for i := range n {
		b.enqueue(fmt.Sprintf("ours-%d", i))
		if _, err := client.Enqueue(asynq.NewTask("mail:send", nil), asynq.Queue(q), asynq.TaskID(fmt.Sprintf("theirs-%d", i))); err != nil {
			t.Fatal(err)
		}
		for _, job := range b.fetch(1).Jobs {
			ran(job.ID)
			b.finish(queue.Done(job))
		}
	}
	eventually(t, "all jobs ran", func() bool {
		for _, job := range b.fetch(5).Jobs {
			ran(job.ID)
			b.finish(queue.Done(job))
		}
		return total() == 2*n
	})
	theirs.Shutdown()
	for id, times := range runs {
		if times != 1 {
			t.Errorf("%s ran %d times", id, times)
		}
	}
	b.atRest()
	if v := b.rdb.Get(b.ctx, wire.ProcessedTotalKey(q)).Val(); v != fmt.Sprint(2*n) {
		t.Errorf("%s processed, want %d", v, 2*n)
	}
}
