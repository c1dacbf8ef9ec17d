package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/problem"
	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/job"
)

// cut is a fault between a client and its Redis: commands that mention any of the words fail, before or after they took place.
type cut struct {
	words []string
	after bool
	on    atomic.Bool
	hits  atomic.Int64
}

var errCut = errors.New("the connection broke")

func (c *cut) meant(cmds ...redis.Cmder) bool {
	for _, cmd := range cmds {
		text := fmt.Sprint(cmd.Args()...)
		for _, word := range c.words {
			if c.on.Load() && strings.Contains(text, word) {
				c.hits.Add(1)
				return true
			}
		}
	}
	return false
}

func (c *cut) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (c *cut) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		return c.through([]redis.Cmder{cmd}, func() error { return next(ctx, cmd) })
	}
}

func (c *cut) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		return c.through(cmds, func() error { return next(ctx, cmds) })
	}
}

func (c *cut) through(cmds []redis.Cmder, do func() error) error {
	meant := c.meant(cmds...)
	if !meant || c.after {
		if err := do(); err != nil || !meant {
			return err
		}
	}
	for _, cmd := range cmds {
		cmd.SetErr(errCut)
	}
	return errCut
}

// faulty is a client of the server that the cut sits on.
func faulty(t *testing.T, server *redistest.Server, c *cut) redis.UniversalClient {
	t.Helper()
	opts, err := redis.ParseURL(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	opts.ContextTimeoutEnabled = true
	rdb := redis.NewClient(opts)
	rdb.AddHook(c)
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

const greetAda = `{"task":"test:greet","payload":{"name":"Ada"}}`

func (d *door) pendingJobs() int64 {
	d.t.Helper()
	n, err := d.rdb.LLen(d.t.Context(), "asynq:{greetings}:pending").Result()
	if err != nil {
		d.t.Fatal(err)
	}
	return n
}

// again sends the request until the first one's claim has lapsed.
func (d *door) again(t *testing.T, path string, body any, headers ...string) answer {
	t.Helper()
	var a answer
	eventually(t, "the claim has lapsed", func() bool {
		a = d.call("POST", path, keys.Enqueue, body, headers...)
		if a.status == http.StatusConflict && a.header.Get("Retry-After") == "" {
			t.Fatalf("a 409 without Retry-After: %s", a.body)
		}
		return a.status != http.StatusConflict
	})
	return a
}

// The gateway dies after it stored the job, before it recorded its answer. The client, who got none, sends the request again.
func TestCrashBetweenEnqueueAndRecord(t *testing.T) {
	t.Parallel()
	for _, ended := range []bool{false, true} {
		t.Run(fmt.Sprintf("ended=%v", ended), func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			fault := &cut{words: []string{settleScript.Hash()}}
			d := setupOver(t, server.Client(), func(c *Config, deps *Deps) {
				c.RedisWithin = 500 * time.Millisecond
				deps.Redis = faulty(t, server, fault)
			})
			var runs atomic.Int64
			ran := make(chan struct{}, 10)
			if ended {
				d.work(func(context.Context, greet) error { runs.Add(1); ran <- struct{}{}; return nil })
			}
			fault.on.Store(true)
			first := want[StoredJob](t, d.call("POST", "/v1/jobs", keys.Enqueue, greetAda, "Idempotency-Key: order-1"), 201)
			if fault.hits.Load() == 0 {
				t.Fatal("nothing was cut")
			}
			fault.on.Store(false)
			if ended {
				<-ran
				want[JobStatus](t, d.call("GET", "/v1/jobs/"+first.ID+"?wait=20s", keys.Read, nil), 200)
			}
			second := want[StoredJob](t, d.again(t, "/v1/jobs", greetAda, "Idempotency-Key: order-1"), 201)
			if second.ID != first.ID || second.Duplicate {
				t.Errorf("first %+v, second %+v", first, second)
			}
			if ended && second.State != "completed" {
				t.Errorf("it has ended, but: %+v", second)
			}
			if n := d.pendingJobs(); !ended && n != 1 {
				t.Errorf("%d jobs were stored", n)
			}
			if n := runs.Load(); ended && n != 1 {
				t.Errorf("the job ran %d times", n)
			}
			third := d.call("POST", "/v1/jobs", keys.Enqueue, greetAda, "Idempotency-Key: order-1")
			if want[StoredJob](t, third, 201) != second || third.header.Get("Idempotent-Replayed") != "true" {
				t.Errorf("third %s", third.body)
			}
		})
	}
}

// The job is stored, but Redis' answer is lost: the client gets a 503, and sends the request again.
func TestAnswerOfRedisLost(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprintf("stored=%v", after), func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			fault := &cut{words: []string{"asynq:{greetings}:pending"}, after: after}
			d := setupOver(t, server.Client(), func(c *Config, deps *Deps) {
				c.RedisWithin = 500 * time.Millisecond
				deps.Jobs = job.NewClient(faulty(t, server, fault))
			})
			fault.on.Store(true)
			a := d.call("POST", "/v1/jobs", keys.Enqueue, greetAda, "Idempotency-Key: order-1")
			p := want[problem.Problem](t, a, 503)
			if a.header.Get("Retry-After") == "" || strings.Contains(p.Detail, errCut.Error()) {
				t.Errorf("%+v %v", p, a.header)
			}
			fault.on.Store(false)
			stored := want[StoredJob](t, d.again(t, "/v1/jobs", greetAda, "Idempotency-Key: order-1"), 201)
			if n := d.pendingJobs(); n != 1 || stored.Duplicate {
				t.Errorf("%d jobs were stored: %+v", n, stored)
			}
		})
	}
}

// One of a batch's queues can't be reached. The rest is stored, and a repetition brings what is missing, once.
func TestBatchInPartsIsFinishedLater(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	fault := &cut{words: []string{"asynq:{broken}:pending"}}
	d := setupOver(t, server.Client(), func(c *Config, deps *Deps) {
		c.RedisWithin = 500 * time.Millisecond
		deps.Jobs = job.NewClient(faulty(t, server, fault))
	})
	body := `{"jobs":[` + greetAda + `,{"task":"test:greet","payload":{"name":"Bob"},"queue":"broken"}]}`
	fault.on.Store(true)
	a := d.call("POST", "/v1/jobs/batch", keys.Enqueue, body, "Idempotency-Key: b")
	fault.on.Store(false)
	if a.status == 207 { // both queues may share a pipeline, and its fate
		got := want[BatchAnswer](t, a, 207)
		if got.Stored != 1 || got.Results[1].Status != 503 {
			t.Errorf("first: %+v", got)
		}
	} else if a.status != 503 {
		t.Fatalf("first: %d %s", a.status, a.body)
	}
	whole := want[BatchAnswer](t, d.again(t, "/v1/jobs/batch", body, "Idempotency-Key: b"), 200)
	if whole.Stored != 2 || whole.Results[0].Status != 201 || whole.Results[1].Status != 201 {
		t.Errorf("second: %+v", whole)
	}
	replay := d.call("POST", "/v1/jobs/batch", keys.Enqueue, body, "Idempotency-Key: b")
	if want[BatchAnswer](t, replay, 200); replay.header.Get("Idempotent-Replayed") != "true" {
		t.Error("the whole answer was not recorded")
	}
	for _, q := range []string{"greetings", "broken"} {
		if n, err := d.rdb.LLen(t.Context(), "asynq:{"+q+"}:pending").Result(); err != nil || n != 1 {
			t.Errorf("%s has %d jobs: %v", q, n, err)
		}
	}
}

// Redis is gone, or stands still: a 503 in bounded time, then all is well again.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]func(*redistest.Server) func(){
		"killed": func(s *redistest.Server) func() { s.Kill(); return s.Restart },
		"paused": func(s *redistest.Server) func() { s.Pause(); return s.Resume },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, redistest.WithAOF())
			d := setupOver(t, server.Client(), func(c *Config, _ *Deps) { c.RedisWithin = 300 * time.Millisecond })
			want[StoredJob](t, d.call("POST", "/v1/jobs", keys.Enqueue, `{"task":"test:greet","payload":{"name":"Ada"},"id":"a"}`), 201)
			want[TaskList](t, d.call("GET", "/v1/tasks", keys.Read, nil), 200) // the keys are known from now on
			back := away(server)
			for _, call := range []struct {
				method, path string
				scope        keys.Scope
				body         any
				headers      []string
			}{
				{"POST", "/v1/jobs", keys.Enqueue, greetAda, nil},
				{"POST", "/v1/jobs", keys.Enqueue, greetAda, []string{"Idempotency-Key: k"}},
				{"POST", "/v1/jobs", keys.Enqueue, `{"task":"test:other"}`, nil},
				{"POST", "/v1/jobs/batch", keys.Enqueue, `{"jobs":[` + greetAda + `]}`, nil},
				{"GET", "/v1/jobs/a", keys.Read, nil, nil},
				{"GET", "/v1/jobs/a?queue=greetings", keys.Read, nil, nil},
				{"DELETE", "/v1/jobs/a", keys.Enqueue, nil, nil},
			} {
				began := time.Now()
				a := d.call(call.method, call.path, call.scope, call.body, call.headers...)
				if a.status != 503 || a.header.Get("Retry-After") == "" {
					t.Errorf("%s %s: %d %v %s", call.method, call.path, a.status, a.header, a.body)
				}
				t.Logf("%s %s: %d after %v", call.method, call.path, a.status, time.Since(began).Round(time.Millisecond))
			}
			want[TaskList](t, d.call("GET", "/v1/tasks", keys.Read, nil), 200)
			if why := d.gateway.unready(t.Context()); !strings.Contains(why, "Redis does not answer") {
				t.Errorf("ready: %q", why)
			}
			back()
			eventually(t, "jobs are taken again", func() bool {
				return d.call("POST", "/v1/jobs", keys.Enqueue, greetAda, "Idempotency-Key: k").status == 201
			})
			want[JobStatus](t, d.call("GET", "/v1/jobs/a", keys.Read, nil), 200)
		})
	}
}
