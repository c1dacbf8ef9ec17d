package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/worker"
)

// spoil enqueues a job and breaks its message.
func spoil(t *testing.T, rdb redis.UniversalClient, message string, opts ...job.Option) (id string) {
	t.Helper()
	info, err := task.Enqueue(t.Context(), job.NewClient(rdb), payload{N: 1}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	if err := rdb.HSet(t.Context(), wire.JobKey("math", info.ID), "msg", message).Err(); err != nil {
		t.Fatal(err)
	}
	return info.ID
}

// work runs a worker of the queue until the test ends.
func work(t *testing.T, rdb redis.UniversalClient) {
	t.Helper()
	w, err := worker.New(rdb, worker.Config{Queues: []worker.Queue{{Name: "math", Weight: 1}}, Grace: time.Second},
		task.HandledBy(func(context.Context, payload) error { return nil }))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A worker sets aside what it can't decode: it is counted, shown and kept until it is removed.
func TestUndecodableJobsAreShown(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, c := t.Context(), fleet.New(rdb)
		long := "\xff" + strings.Repeat("canary", fleet.LongestShown)
		messages := map[string]string{}
		for _, message := range []string{"\xff\xff", "", long} {
			messages[spoil(t, rdb, message)] = message
		}
		locked := spoil(t, rdb, "\x00", job.Unique(time.Hour))
		messages[locked] = "\x00"
		good, err := task.Enqueue(ctx, job.NewClient(rdb), payload{N: 2})
		if err != nil {
			t.Fatal(err)
		}
		work(t, rdb)
		awaitBacklog(t, c, fleet.Backlog{Completed: 1, Undecodable: 4})

		queues, err := c.Queues(ctx)
		if diff := cmp.Diff([]fleet.Queue{{Name: "math", Backlog: fleet.Backlog{Completed: 1, Undecodable: 4}, Workers: 1}}, queues); diff != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
		page, next, err := c.Undecodable(ctx, "math", "", 10)
		if err != nil || next != "" || len(page) != 4 {
			t.Fatalf("%d jobs, next %q, %v", len(page), next, err)
		}
		for _, u := range page {
			want := messages[u.ID]
			if u.Size != len(want) || string(u.Message) != want[:min(len(want), fleet.LongestShown)] || time.Since(u.At).Abs() > time.Minute {
				t.Errorf("job %s: %d bytes at %v, %d shown", u.ID, u.Size, u.At, len(u.Message))
			}
		}

		if _, err := task.Enqueue(ctx, job.NewClient(rdb), payload{N: 1}, job.Unique(time.Hour)); !errors.Is(err, job.ErrDuplicate) {
			t.Errorf("the lock of a job that was set aside is lost: %v", err)
		}
		if err := c.RemoveUndecodable(ctx, "math", locked); err != nil {
			t.Fatal(err)
		}
		if err := c.RemoveUndecodable(ctx, "math", locked); !errors.Is(err, fleet.ErrNoJob) {
			t.Errorf("removed twice: %v", err)
		}
		if err := c.RemoveUndecodable(ctx, "math", good.ID); !errors.Is(err, fleet.ErrNoJob) {
			t.Errorf("a job that is not set aside: %v", err)
		}
		if j, err := c.Job(ctx, "math", good.ID); err != nil || !j.Completed() {
			t.Errorf("%+v, %v", j, err)
		}
		if _, err := c.Job(ctx, "math", locked); !errors.Is(err, fleet.ErrNoJob) {
			t.Errorf("a removed job: %v", err)
		}
		if _, err := task.Enqueue(ctx, job.NewClient(rdb), payload{N: 1}, job.Unique(time.Hour)); err != nil {
			t.Errorf("the lock of a removed job stands: %v", err)
		}
		awaitBacklog(t, c, fleet.Backlog{Completed: 2, Undecodable: 3})
	})
}

func awaitBacklog(t *testing.T, c *fleet.Client, want fleet.Backlog) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; {
		got, err := c.Backlog(t.Context(), "math")
		if err == nil && got == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("backlog %+v, %v; want %+v", got, err, want)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// Pages neither repeat nor leave out a job, also where many were set aside in one second and some are removed on the way.
func TestUndecodablePages(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, c := t.Context(), fleet.New(rdb)
		var want []string
		for second := range 3 {
			for i := range 250 {
				id := fmt.Sprintf("j:%d-%03d", second, i)
				want = append(want, id)
				rdb.ZAdd(ctx, wire.UndecodableKey("math"), redis.Z{Score: float64(1000 + second), Member: id})
				rdb.HSet(ctx, wire.JobKey("math", id), "state", "undecodable", "msg", id)
			}
		}
		rdb.Del(ctx, wire.JobKey("math", want[1])) // somebody deleted it by hand
		for _, limit := range []int{7, 250, 5000} {
			var got []string
			cursor := ""
			for {
				page, next, err := c.Undecodable(ctx, "math", cursor, limit)
				if err != nil || len(page) > limit {
					t.Fatalf("%d jobs, %v", len(page), err)
				}
				for _, u := range page {
					got = append(got, u.ID)
					if gone := u.ID == "j:0-001"; gone != (u.Size < 0) || !gone && string(u.Message) != u.ID {
						t.Errorf("job %s: %d %q", u.ID, u.Size, u.Message)
					}
				}
				if cursor = next; cursor == "" {
					break
				}
				if limit == 250 { // what the cursor names
					last := page[len(page)-1]
					if err := c.RemoveUndecodable(ctx, "math", last.ID); err != nil {
						t.Fatal(err)
					}
				}
			}
			if limit < 5000 {
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("by %d (-want +got):\n%s", limit, diff)
				}
			} else if len(got) != len(want)-2 {
				t.Errorf("%d jobs, want %d", len(got), len(want)-2)
			}
		}
		if err := c.RemoveUndecodable(ctx, "math", "j:0-001"); err != nil {
			t.Errorf("one without a message: %v", err)
		}
		// An id that was used again, after its hash was deleted by hand, is another job: only the old place goes.
		reused, err := task.Enqueue(ctx, job.NewClient(rdb), payload{N: 1}, job.ID("again"))
		if err != nil {
			t.Fatal(err)
		}
		rdb.ZAdd(ctx, wire.UndecodableKey("math"), redis.Z{Score: 1, Member: "again"})
		if err := c.RemoveUndecodable(ctx, "math", "again"); err != nil {
			t.Error(err)
		}
		if j, err := c.Job(ctx, "math", reused.ID); err != nil || j.State != "pending" {
			t.Errorf("another job was removed: %+v, %v", j, err)
		}
		for _, cursor := range []string{"x", "!", "MTAwMA"} {
			if _, _, err := c.Undecodable(ctx, "math", cursor, 1); !errors.Is(err, fleet.ErrCursor) {
				t.Errorf("cursor %q: %v", cursor, err)
			}
		}
	})
}

// Also a queue that nobody has used, but a worker serves, is listed; one that is only drained is not served.
func TestQueues(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, c := t.Context(), fleet.New(rdb)
		if queues, err := c.Queues(ctx); err != nil || len(queues) != 0 {
			t.Errorf("%+v, %v", queues, err)
		}
		if known, err := c.HasQueue(ctx, "math"); err != nil || known {
			t.Errorf("%v, %v", known, err)
		}
		if _, err := task.Enqueue(ctx, job.NewClient(rdb), payload{}); err != nil {
			t.Fatal(err)
		}
		for _, w := range []fleet.Worker{
			{ID: "a", Queues: map[string]int{"mail": 2, "a": 1}},
			{ID: "b", Queues: map[string]int{"mail": 1}},
			{ID: "c", Queues: map[string]int{"math": 1}, Draining: true},
		} {
			if _, err := c.Beat(ctx, w); err != nil {
				t.Fatal(err)
			}
		}
		queues, err := c.Queues(ctx)
		if diff := cmp.Diff([]fleet.Queue{{Name: "a", Workers: 1}, {Name: "mail", Workers: 2}, {Name: "math", Backlog: fleet.Backlog{Pending: 1}}}, queues); diff != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
		if known, err := c.HasQueue(ctx, "math"); err != nil || !known {
			t.Errorf("%v, %v", known, err)
		}
	})
}
