package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/worker"
)

// order is what a job of these tests is told to do.
type order struct {
	Answer string `json:"answer"`
	Fail   string `json:"fail"` // for good
	Hold   bool   `json:"hold"` // until the test says go
	Flaky  bool   `json:"flaky"`
}

var serve = job.Define[order]("serve", job.Queue("desk"), job.Retry(func(int, error) time.Duration { return 0 }))

// desk is a queue with a worker of one engine.
type desk struct {
	t     *testing.T
	rdb   redis.UniversalClient
	fleet *fleet.Client
	jobs  *job.Client
	held  chan string   // the ids of jobs that hold
	goOn  chan struct{} // lets them end
}

func newDesk(t *testing.T, rdb redis.UniversalClient) *desk {
	return &desk{t: t, rdb: rdb, fleet: fleet.New(rdb), jobs: job.NewClient(rdb), held: make(chan string, 100), goOn: make(chan struct{})}
}

func (d *desk) work(engine string) {
	d.t.Helper()
	handle := func(ctx context.Context, o order) error {
		j, _ := job.FromContext(ctx)
		switch {
		case o.Hold:
			d.held <- j.ID
			select {
			case <-d.goOn:
			case <-ctx.Done():
				return ctx.Err()
			}
		case o.Fail != "":
			return job.Discard(o.Fail)
		case o.Flaky && j.Attempt == 1:
			return errors.New("not yet")
		}
		if o.Answer != "" {
			return j.SetResult([]byte(o.Answer))
		}
		return nil
	}
	log := slog.New(slog.NewTextHandler(d.t.Output(), nil))
	w, err := worker.New(d.rdb, worker.Config{
		Engine: engine, Concurrency: 50, Grace: time.Second, Logger: log, Queues: []worker.Queue{{Name: "desk", Weight: 1}},
	}, serve.HandledBy(handle))
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.Run(ctx); err != nil {
			d.t.Error(err)
		}
	})
	d.t.Cleanup(func() { cancel(); running.Wait() })
}

func (d *desk) enqueue(o order, opts ...job.Option) string {
	d.t.Helper()
	info, err := serve.Enqueue(d.t.Context(), d.jobs, o, opts...)
	if err != nil {
		d.t.Fatal(err)
	}
	return info.ID
}

// await is Await with a limit that no test should reach.
func (d *desk) await(id string) (fleet.Job, error) {
	ctx, cancel := context.WithTimeout(d.t.Context(), 30*time.Second)
	defer cancel()
	return d.fleet.Await(ctx, "desk", id)
}

// eventually waits for a condition that Redis does not tell.
func (d *desk) eventually(what string, ok func() bool) {
	d.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			d.t.Fatalf("not within 20s: %s", what)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-d.t.Context().Done():
			d.t.FailNow()
		}
	}
}

func (d *desk) awaited(id string) bool {
	return d.rdb.HExists(d.t.Context(), wire.AwaitedKey("desk"), id).Val()
}

func TestAwaitTellsHowAJobEnded(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, engine := range []string{worker.EngineBellhop, worker.EngineAsynq} {
			t.Run(engine, func(t *testing.T) {
				rdb.FlushAll(t.Context())
				d := newDesk(t, rdb)
				if j, err := d.await("nobody"); !errors.Is(err, fleet.ErrNoJob) {
					t.Errorf("a job that was never there: %+v, %v", j, err)
				}
				scheduled := d.enqueue(order{Answer: "late"}, job.In(time.Hour))
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				defer cancel()
				last, err := d.fleet.Await(ctx, "desk", scheduled)
				if !errors.Is(err, context.DeadlineExceeded) || last.State != "scheduled" || last.Task != "serve" || last.NextAt.IsZero() {
					t.Errorf("the end of the wait: %+v, %v", last, err)
				}
				d.work(engine)
				kept := d.enqueue(order{Answer: "yes"}, job.Retention(time.Minute))
				dead := d.enqueue(order{Fail: "no"})
				flaky := d.enqueue(order{Answer: "at last", Flaky: true}, job.Retention(time.Minute))
				if j, err := d.await(kept); err != nil || !j.Completed() || string(j.Result) != "yes" {
					t.Errorf("kept: %+v, %v", j, err)
				}
				if j, err := d.await(dead); err != nil || !j.Dead() || !strings.Contains(j.LastError, "no") {
					t.Errorf("dead: %+v, %v", j, err)
				}
				if j, err := d.await(flaky); err != nil || !j.Completed() || string(j.Result) != "at last" || j.Retried != 1 {
					t.Errorf("flaky: %+v, %v", j, err)
				}
			})
		}
	})
}

// Nothing is left in Redis of a job that has succeeded and isn't kept; who awaits it is told its result all the same.
func TestAwaitTellsTheResultOfAJobThatIsNotKept(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		d := newDesk(t, rdb)
		d.work(worker.EngineBellhop)
		long := strings.Repeat("x", 64<<10)
		for answer, want := range map[string]fleet.Job{
			"":                {},
			"# 1 2 =\u0000ü ": {Result: []byte("# 1 2 =\u0000ü ")},
			long:              {Result: []byte(long)},
			long + "x":        {ResultCut: true},
		} {
			id := d.enqueue(order{Answer: answer, Hold: true}, job.MaxRetry(7))
			<-d.held
			got := make(chan fleet.Job, 1)
			go func() {
				j, err := d.await(id)
				if err != nil {
					t.Error(err)
				}
				got <- j
			}()
			d.eventually("the job is marked", func() bool { return d.awaited(id) })
			d.goOn <- struct{}{}
			want.ID, want.Queue, want.Task, want.State, want.MaxRetry = id, "desk", "serve", "completed", 7
			if diff := cmp.Diff(want, <-got, cmpopts.IgnoreFields(fleet.Job{}, "Payload")); diff != "" {
				t.Errorf("result of %d bytes: %s", len(answer), diff)
			}
			if _, err := d.fleet.Job(t.Context(), "desk", id); !errors.Is(err, fleet.ErrNoJob) {
				t.Errorf("the job is kept: %v", err)
			}
		}
	})
}

func TestAwaitIsWokenOverOneConnection(t *testing.T) {
	t.Parallel()
	const waiters = 1000
	ctx, rdb := t.Context(), redistest.New(t)
	d := newDesk(t, rdb)
	ids := make([]string, waiters)
	for i := range ids {
		ids[i] = d.enqueue(order{Answer: fmt.Sprint(i)})
	}
	var waiting sync.WaitGroup
	for i, id := range ids {
		for range 1 + i%2 { // some jobs have two
			waiting.Go(func() {
				j, err := d.await(id)
				if err != nil || !j.Completed() || string(j.Result) != fmt.Sprint(i) {
					t.Errorf("job %d: %+v, %v", i, j, err)
				}
			})
		}
	}
	d.eventually("all jobs are marked", func() bool { return rdb.HLen(ctx, wire.AwaitedKey("desk")).Val() == waiters })
	subscribed := 0
	for line := range strings.SplitSeq(rdb.ClientList(ctx).Val(), "\n") {
		if strings.Contains(line, " sub=1 ") {
			subscribed++
		}
	}
	if subscribed != 1 {
		t.Errorf("%d connections are subscribed, want 1", subscribed)
	}
	began := time.Now()
	d.work(worker.EngineBellhop)
	waiting.Wait()
	t.Logf("%d waiters were told within %v of the worker's start", waiters, time.Since(began).Round(time.Millisecond))
	if n := rdb.Exists(ctx, wire.AwaitedKey("desk")).Val(); n != 0 {
		t.Error("marks are left")
	}
}

func TestAwaitForgoesWhatNobodyWaitsFor(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		d := newDesk(t, rdb)
		id := d.enqueue(order{})
		other := fleet.New(rdb)
		stay, leave := context.WithCancel(t.Context())
		quick, stop := context.WithCancel(t.Context())
		var waiting sync.WaitGroup
		for c, ctx := range map[*fleet.Client]context.Context{d.fleet: quick, other: stay} {
			waiting.Go(func() {
				if _, err := c.Await(ctx, "desk", id); !errors.Is(err, context.Canceled) {
					t.Errorf("got %v", err)
				}
			})
		}
		marks := func() int { return len(strings.Fields(rdb.HGet(t.Context(), wire.AwaitedKey("desk"), id).Val())) }
		d.eventually("two processes wait", func() bool { return marks() == 2 })
		stop()
		d.eventually("one has gone", func() bool { return marks() == 1 })
		leave()
		d.eventually("nobody waits", func() bool { return !d.awaited(id) })
		waiting.Wait()
	})
}

// What ends while the connection is down is found by a look as soon as it is back.
func TestAwaitOutlivesItsConnection(t *testing.T) {
	t.Parallel()
	ctx, rdb := t.Context(), redistest.New(t)
	d := newDesk(t, rdb)
	d.work(worker.EngineBellhop)
	for range 5 {
		id := d.enqueue(order{Answer: "yes", Hold: true}, job.Retention(time.Minute))
		<-d.held
		answer := make(chan error, 1)
		go func() {
			j, err := d.await(id)
			if err == nil && string(j.Result) != "yes" {
				err = fmt.Errorf("result %q", j.Result)
			}
			answer <- err
		}()
		d.eventually("the job is marked", func() bool { return d.awaited(id) })
		if err := rdb.Do(ctx, "CLIENT", "KILL", "TYPE", "PUBSUB").Err(); err != nil {
			t.Fatal(err)
		}
		d.goOn <- struct{}{}
		if err := <-answer; err != nil {
			t.Error(err)
		}
	}
}

func TestAwaitSeesWhatStockToolsAndServersDo(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		d := newDesk(t, rdb)
		deleted, killed := d.enqueue(order{}), d.enqueue(order{})
		kept, lost := d.enqueue(order{Answer: "yes"}, job.Retention(time.Minute)), d.enqueue(order{})
		var waiting sync.WaitGroup
		expect := func(id string, ok func(fleet.Job, error) bool) {
			waiting.Go(func() {
				if j, err := d.await(id); !ok(j, err) {
					t.Errorf("%+v, %v", j, err)
				}
			})
			d.eventually("the job is marked", func() bool { return d.awaited(id) })
		}
		gone := func(_ fleet.Job, err error) bool { return errors.Is(err, fleet.ErrNoJob) }
		expect(deleted, gone)
		expect(killed, func(j fleet.Job, err error) bool { return err == nil && j.Dead() })
		expect(kept, func(j fleet.Job, err error) bool { return err == nil && j.Completed() && string(j.Result) == "stock" })
		expect(lost, gone)
		inspector := asynq.NewInspectorFromRedisClient(rdb)
		if err := errors.Join(inspector.DeleteTask("desk", deleted), inspector.ArchiveTask("desk", killed)); err != nil {
			t.Fatal(err)
		}
		stock := asynq.NewServerFromRedisClient(rdb, asynq.Config{Queues: map[string]int{"desk": 1}, LogLevel: asynq.FatalLevel, TaskCheckInterval: 10 * time.Millisecond})
		err := stock.Start(asynq.HandlerFunc(func(_ context.Context, t *asynq.Task) error {
			_, err := t.ResultWriter().Write([]byte("stock"))
			return err
		}))
		if err != nil {
			t.Fatal(err)
		}
		defer stock.Shutdown()
		waiting.Wait()
	})
}

func TestAwaitAndFindOnClusterAndSentinel(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T) redis.UniversalClient{
		"cluster":  func(t *testing.T) redis.UniversalClient { return redistest.Cluster(t).Client() },
		"sentinel": func(t *testing.T) redis.UniversalClient { return redistest.Sentinel(t).Client() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDesk(t, open(t))
			d.work(worker.EngineBellhop)
			for range 3 {
				id := d.enqueue(order{Answer: "yes", Hold: true})
				<-d.held
				if j, err := d.fleet.Find(t.Context(), id); err != nil || j.Queue != "desk" || j.State != "active" {
					t.Errorf("%+v, %v", j, err)
				}
				answer := make(chan error, 1)
				go func() {
					j, err := d.await(id)
					if err == nil && (!j.Completed() || string(j.Result) != "yes") {
						err = fmt.Errorf("%+v", j)
					}
					answer <- err
				}()
				d.eventually("the job is marked", func() bool { return d.awaited(id) })
				d.goOn <- struct{}{}
				if err := <-answer; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		d := newDesk(t, rdb)
		if _, err := d.fleet.Find(ctx, "x"); !errors.Is(err, fleet.ErrNoJob) {
			t.Errorf("no queue at all: %v", err)
		}
		for _, queue := range []string{"a", "b", "desk"} {
			d.enqueue(order{}, job.Queue(queue), job.ID("one-"+queue), job.In(time.Hour))
		}
		j, err := d.fleet.Find(ctx, "one-b")
		if err != nil || j.Queue != "b" || j.ID != "one-b" || j.State != "scheduled" || time.Until(j.NextAt) < 59*time.Minute {
			t.Errorf("%+v, %v", j, err)
		}
		if _, err := d.fleet.Find(ctx, "two"); !errors.Is(err, fleet.ErrNoJob) {
			t.Errorf("no such job: %v", err)
		}
		d.enqueue(order{}, job.Queue("b"), job.ID("one-a"))
		if _, err := d.fleet.Find(ctx, "one-a"); !errors.Is(err, fleet.ErrAmbiguous) || !strings.Contains(err.Error(), "a, b") {
			t.Errorf("two queues have it: %v", err)
		}
	})
}
