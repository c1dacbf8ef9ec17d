package worker_test

import (
	"context"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/job"
)

// After a flush every worker writes its own tasks again, not only the first one to beat; and tasks that a full Redis refused at the
// start are written once there is room.
func TestTasksAreWrittenAgain(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	b := newBench(t, server.Client(), "")
	records := fleet.New(b.rdb)
	known := func() int {
		tasks, err := records.Tasks(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(tasks)
	}
	route := func(name string) job.Route {
		return job.Define[payload](name).HandledBy(func(context.Context, payload) error { return nil })
	}
	b.start(b.config(), route("one"))
	b.start(b.config(), route("two"))
	b.eventually("both tasks are known", func() bool { return known() == 2 })
	if err := server.Admin().FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	b.eventually("both tasks are known again", func() bool { return known() == 2 })

	limit := func(bytes string) {
		if err := server.Admin().ConfigSet(t.Context(), "maxmemory", bytes).Err(); err != nil {
			t.Fatal(err)
		}
	}
	limit("1mb")
	if err := b.rdb.Set(t.Context(), "x", "y", 0).Err(); !redis.HasErrorPrefix(err, "OOM") {
		t.Fatalf("Redis is not full: %v", err)
	}
	w, _ := b.start(b.config(), route("three"))
	b.eventually("a worker is ready on a full Redis", func() bool { return w.Ready() == nil })
	if known() != 2 {
		t.Error("a full Redis took the third task")
	}
	limit("0")
	b.eventually("the third task is known", func() bool { return known() == 3 })
}
