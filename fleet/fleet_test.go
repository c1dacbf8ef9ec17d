package fleet_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/job"
)

type payload struct {
	N int `json:"n"`
}

var task = job.Define[payload]("count", job.Queue("math"), job.Retention(time.Hour))

func TestWorkersLiveAndLeave(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, c := t.Context(), fleet.New(rdb)
		started := time.Now().UTC().Truncate(time.Second)
		w := fleet.Worker{
			ID: "a", Host: "h", PID: 7, Build: "v1", Engine: "asynq", Concurrency: 3,
			Queues: map[string]int{"math": 2}, Tasks: []string{"count"}, Started: started,
		}
		for _, id := range []string{"a", "b"} {
			w.ID = id
			if _, err := c.Beat(ctx, w); err != nil {
				t.Fatal(err)
			}
		}
		workers, err := c.Workers(ctx)
		if err != nil || len(workers) != 2 {
			t.Fatalf("%v, %v", workers, err)
		}
		for i := range workers {
			if workers[i].Beat.IsZero() {
				t.Errorf("worker %s has no beat", workers[i].ID)
			}
			workers[i].Beat = time.Time{}
		}
		w.ID = workers[1].ID
		if diff := cmp.Diff(w, workers[1]); diff != "" {
			t.Error(diff)
		}
		if err := c.CheckServed(ctx, []string{"math"}); err != nil {
			t.Error(err)
		}
		if err := c.CheckServed(ctx, []string{"math", "mail"}); !errors.Is(err, fleet.ErrNotServed) {
			t.Errorf("a queue without a worker: %v", err)
		}
		if err := c.Leave(ctx, "a"); err != nil {
			t.Fatal(err)
		}
		w.ID, w.Draining = "b", true
		if _, err := c.Beat(ctx, w); err != nil {
			t.Fatal(err)
		}
		if err := c.CheckServed(ctx, []string{"math"}); !errors.Is(err, fleet.ErrNotServed) {
			t.Errorf("a draining worker counts: %v", err)
		}
	})
}

// The beat's age is told by Redis' clock: an old score is a dead worker.
func TestSilentWorkersAreDead(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, c := t.Context(), fleet.New(rdb)
		if _, err := c.Beat(ctx, fleet.Worker{ID: "old", Queues: map[string]int{"math": 1}}); err != nil {
			t.Fatal(err)
		}
		now := rdb.Time(ctx).Val()
		past := float64(now.Add(-fleet.AliveFor - time.Second).UnixMilli())
		rdb.ZAdd(ctx, "bellhop:{fleet}:workers", redis.Z{Member: "old", Score: past})
		if workers, err := c.Workers(ctx); err != nil || len(workers) != 0 {
			t.Errorf("%v, %v", workers, err)
		}
		rdb.ZAdd(ctx, "bellhop:{fleet}:workers", redis.Z{Member: "old", Score: 1})
		if _, err := c.Beat(ctx, fleet.Worker{ID: "new"}); err != nil {
			t.Fatal(err)
		}
		if n := rdb.ZCard(ctx, "bellhop:{fleet}:workers").Val(); n != 1 {
			t.Errorf("%d workers are kept, the long silent one is not forgotten", n)
		}
	})
}

func TestRegistry(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, c := t.Context(), fleet.New(rdb)
		if _, err := c.Task(ctx, "count"); !errors.Is(err, fleet.ErrUnknownTask) {
			t.Errorf("got %v", err)
		}
		if known, err := c.Beat(ctx, fleet.Worker{ID: "w"}); err != nil || known {
			t.Errorf("a newcomer is known: %v", err)
		}
		if err := c.Register(ctx, "v1", []job.Definition{task.Definition()}); err != nil {
			t.Fatal(err)
		}
		if known, err := c.Beat(ctx, fleet.Worker{ID: "w"}); err != nil || !known {
			t.Errorf("the second beat says %v, %v", known, err)
		}
		// Another worker has written its tasks. That says nothing of those of a newcomer.
		if known, err := c.Beat(ctx, fleet.Worker{ID: "another"}); err != nil || known {
			t.Errorf("a newcomer is known by another's tasks: %v", err)
		}
		got, err := c.Task(ctx, "count")
		if err != nil || got.Build != "v1" || got.Defaults != task.Definition().Defaults {
			t.Errorf("%+v, %v", got, err)
		}
		if _, err := got.Request([]byte(`{"n":"x"}`)); err == nil {
			t.Error("the schema was lost on the way")
		}

		catalog := fleet.NewCatalog(c, nil)
		if _, known := catalog.Task("count"); known {
			t.Error("a catalog knows before it has looked")
		}
		if err := catalog.Refresh(ctx); err != nil {
			t.Fatal(err)
		}
		if _, known := catalog.Task("count"); !known || len(catalog.Names()) != 1 {
			t.Errorf("the catalog knows %v", catalog.Names())
		}
	})
}

func TestJobsAndBacklog(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, c, jobs := t.Context(), fleet.New(rdb), job.NewClient(rdb)
		if b, err := c.Backlog(ctx, "math"); err != nil || b != (fleet.Backlog{}) {
			t.Errorf("an unused queue: %+v, %v", b, err)
		}
		if _, err := c.Job(ctx, "math", "x"); !errors.Is(err, fleet.ErrNoJob) {
			t.Errorf("got %v", err)
		}
		info, err := task.Enqueue(ctx, jobs, payload{N: 1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := task.Enqueue(ctx, jobs, payload{N: 2}, job.In(time.Hour)); err != nil {
			t.Fatal(err)
		}
		j, err := c.Job(ctx, "math", info.ID)
		if err != nil || j.State != "pending" || string(j.Payload) != `{"n":1}` || j.Dead() || j.Completed() {
			t.Errorf("%+v, %v", j, err)
		}
		inspector := asynq.NewInspectorFromRedisClient(rdb)
		if err := errors.Join(inspector.PauseQueue("math"), inspector.ArchiveTask("math", info.ID)); err != nil {
			t.Fatal(err)
		}
		if b, err := c.Backlog(ctx, "math"); err != nil || b != (fleet.Backlog{Scheduled: 1, Dead: 1, Paused: true}) {
			t.Errorf("%+v, %v", b, err)
		}
	})
}

// A full Redis still hears that the fleet lives.
func TestBeatsReachAFullRedis(t *testing.T) {
	t.Parallel()
	ctx, rdb := t.Context(), redistest.New(t)
	c := fleet.New(rdb)
	for _, id := range []string{"before", "since"} {
		if _, err := c.Beat(ctx, fleet.Worker{ID: id}); err != nil {
			t.Errorf("%s Redis was full: %v", id, err)
		}
		if err := rdb.ConfigSet(ctx, "maxmemory", "1mb").Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := rdb.Set(ctx, "x", "y", 0).Err(); !redis.HasErrorPrefix(err, "OOM") {
		t.Fatalf("Redis is not full: %v", err)
	}
	if workers, err := c.Workers(ctx); err != nil || len(workers) != 2 {
		t.Errorf("%v, %v", workers, err)
	}
}
