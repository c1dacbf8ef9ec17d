package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/job"
)

// q is the queue of most scenarios.
const q = "default"

// patience bounds the waits for what takes a moment by itself.
const patience = 60 * time.Second

// rig is a Redis with a fleet of one kind, and a ledger.
type rig struct {
	t      *testing.T
	fleet  string
	server *redistest.Server // nil where the scenario brings its own Redis
	rdb    redis.UniversalClient
	url    string // for the workers
	ledger *ledger

	mu     sync.Mutex
	client *job.Client
	theirs *asynq.Client
	acked  map[string]time.Time // the ids that were acknowledged, and when
	names  int
}

type rigConfig struct {
	redis []redistest.Option
	bare  bool
}

type rigOption func(*rigConfig)

// withRedis configures the rig's redis-server.
func withRedis(opts ...redistest.Option) rigOption {
	return func(c *rigConfig) { c.redis = append(c.redis, opts...) }
}

// withoutRedis leaves the Redis to the scenario.
func withoutRedis() rigOption { return func(c *rigConfig) { c.bare = true } }

func newRig(t *testing.T, fleet string, opts ...rigOption) *rig {
	t.Helper()
	var cfg rigConfig
	for _, opt := range opts {
		opt(&cfg)
	}
	r := &rig{t: t, fleet: fleet, ledger: newLedger(t), acked: make(map[string]time.Time)}
	if !cfg.bare {
		r.server = redistest.Start(t, cfg.redis...)
		r.use(r.server.Client(), r.server.URL())
	}
	return r
}

// use makes rdb the rig's Redis, url its address for the workers.
func (r *rig) use(rdb redis.UniversalClient, url string) {
	r.rdb, r.url = rdb, url
	r.client, r.theirs = job.NewClient(rdb), asynq.NewClientFromRedisClient(rdb)
}

// stock tells whether the fleet is stock asynq's.
func (r *rig) stock() bool { return r.fleet == stock }

type roleOption func(*role)

func concurrency(n int) roleOption     { return func(r *role) { r.Concurrency = n } }
func grace(d time.Duration) roleOption { return func(r *role) { r.Grace = d } }
func via(url string) roleOption        { return func(r *role) { r.Redis = url } }

// worker starts a worker and waits until it takes jobs.
func (r *rig) worker(opts ...roleOption) *process {
	r.t.Helper()
	p := r.spawn(opts...)
	r.awaitReady(p)
	return p
}

func (r *rig) awaitReady(p *process) {
	r.t.Helper()
	r.ledger.until(patience, "worker "+p.role.Name+" is ready", func(h history) bool { return h.ready(p.role.Name) })
}

func (r *rig) spawn(opts ...roleOption) *process {
	r.t.Helper()
	r.mu.Lock()
	r.names++
	ro := role{
		Name: fmt.Sprintf("%s-%d", r.fleet, r.names), Fleet: r.fleet, Redis: r.url, Ledger: r.ledger.server.URL(),
		Concurrency: 10, Queues: map[string]int{q: 1}, Grace: 10 * time.Second,
	}
	r.mu.Unlock()
	for _, opt := range opts {
		opt(&ro)
	}
	return spawn(r.t, ro)
}

// jobOption is one option in both clients' words.
type jobOption struct {
	ours   job.Option
	theirs asynq.Option
}

func maxRetry(n int) jobOption { return jobOption{job.MaxRetry(n), asynq.MaxRetry(n)} }

func timeout(d time.Duration) jobOption { return jobOption{job.Timeout(d), asynq.Timeout(d)} }

// enqueue stores n jobs by the fleet's own client, and returns their ids. It fails the test if one is refused.
func (r *rig) enqueue(n int, w work, opts ...jobOption) []string {
	r.t.Helper()
	ids := make([]string, n)
	for i := range ids {
		ids[i] = r.nextID()
		if err := r.enqueueID(r.t.Context(), ids[i], w, opts...); err != nil {
			r.t.Fatal(err)
		}
	}
	return ids
}

func (r *rig) nextID() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names++
	return fmt.Sprintf("job-%05d", r.names)
}

// enqueueID stores one job and notes it as acknowledged if it is.
func (r *rig) enqueueID(ctx context.Context, id string, w work, opts ...jobOption) error {
	err := r.store(ctx, id, w, opts)
	if err == nil {
		r.mu.Lock()
		r.acked[id] = time.Now()
		r.mu.Unlock()
	}
	return err
}

func (r *rig) store(ctx context.Context, id string, w work, opts []jobOption) error {
	if !r.stock() {
		o := []job.Option{job.ID(id)}
		for _, opt := range opts {
			o = append(o, opt.ours)
		}
		_, err := workTask.Enqueue(ctx, r.client, w, o...)
		return err
	}
	payload, err := json.Marshal(w)
	if err != nil {
		return err
	}
	o := []asynq.Option{asynq.TaskID(id)}
	for _, opt := range opts {
		o = append(o, opt.theirs)
	}
	_, err = r.theirs.EnqueueContext(ctx, asynq.NewTask("work", payload), o...)
	return err
}

// job reads a job's message as it stands in Redis, nil if it is gone.
func (r *rig) job(id string) (*wire.Message, map[string]string) {
	r.t.Helper()
	h, err := r.rdb.HGetAll(r.t.Context(), wire.JobKey(q, id)).Result()
	if err != nil {
		r.t.Fatal(err)
	}
	if len(h) == 0 {
		return nil, nil
	}
	m, err := wire.Decode([]byte(h["msg"]))
	if err != nil {
		r.t.Fatal(err)
	}
	return m, h
}

// recovery bounds the wait for a recovery: asynq's takes minutes.
func (r *rig) recovery() time.Duration {
	if r.stock() {
		return 5 * time.Minute
	}
	return 30 * time.Second
}

// calls is how often Redis has run a command.
func (r *rig) calls(command string) int {
	r.t.Helper()
	info, err := r.rdb.Info(r.t.Context(), "commandstats").Result()
	if err != nil {
		r.t.Fatal(err)
	}
	_, text, _ := strings.Cut(info, "cmdstat_"+command+":calls=")
	text, _, _ = strings.Cut(text, ",")
	n, _ := strconv.Atoi(text)
	return n
}

// acknowledged are the ids that were.
func (r *rig) acknowledged() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.acked))
}

// lost are the acknowledged ids that neither were executed nor stand in a list of the queue. What moves while it is looked for is
// found by the second look.
func (r *rig) lost() []string {
	r.t.Helper()
	lost := r.missing()
	if len(lost) > 0 {
		pause(r.t.Context(), 300*time.Millisecond)
		again := r.missing()
		lost = slices.DeleteFunc(lost, func(id string) bool { return !slices.Contains(again, id) })
	}
	return lost
}

func (r *rig) missing() []string {
	r.t.Helper()
	queued := r.queued()
	h := historyOf(r.ledger.entries())
	var missing []string
	for _, id := range r.acknowledged() {
		if len(h.ends[id]) == 0 && !queued[id] {
			missing = append(missing, id)
		}
	}
	return missing
}

// queued are the ids in the queue's lists, whatever list.
func (r *rig) queued() map[string]bool {
	r.t.Helper()
	ctx := r.t.Context()
	ids := make(map[string]bool)
	for _, key := range []string{wire.PendingKey(q), wire.ActiveKey(q)} {
		for _, id := range r.rdb.LRange(ctx, key, 0, -1).Val() {
			ids[id] = true
		}
	}
	for _, key := range []string{wire.ScheduledKey(q), wire.RetryKey(q), wire.ArchivedKey(q), wire.CompletedKey(q), wire.UndecodableKey(q)} {
		for _, id := range r.rdb.ZRange(ctx, key, 0, -1).Val() {
			ids[id] = true
		}
	}
	return ids
}

// drained waits until every acknowledged job was executed and nothing is left in the queue, then asserts the invariants at rest.
func (r *rig) drained(limit time.Duration) history {
	r.t.Helper()
	ids := r.acknowledged()
	defer func() {
		if r.t.Failed() {
			r.dump()
		}
	}()
	h := r.ledger.until(limit, "every acknowledged job is executed", func(h history) bool {
		return !slices.ContainsFunc(ids, func(id string) bool { return len(h.ends[id]) == 0 })
	})
	r.atRest(limit)
	return h
}

// dump shows the queue of a failed test.
func (r *rig) dump() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.t.Context()), 5*time.Second)
	defer cancel()
	now, err := r.rdb.Time(ctx).Result()
	r.t.Logf("Redis' clock %d, %v; executed not yet: %v", now.UnixMilli(), err, r.unfinished())
	for _, key := range []string{wire.PendingKey(q), wire.ActiveKey(q), wire.WatchKey(q)} {
		r.t.Logf("%s: %v", key, r.rdb.LRange(ctx, key, 0, 20).Val())
	}
	for _, key := range []string{wire.LeaseKey(q), wire.BeatsKey(q), wire.RetryKey(q)} {
		r.t.Logf("%s: %v", key, r.rdb.ZRangeWithScores(ctx, key, 0, 20).Val())
	}
	r.t.Logf("marks: %v; watcher: %s; keeper: %s", r.rdb.HGetAll(ctx, wire.MarksKey(q)).Val(),
		r.rdb.Get(ctx, wire.WatcherKey(q)).Val(), r.rdb.Get(ctx, wire.KeeperKey(q)).Val())
}

// atRest waits until nothing runs or waits to run, and asserts the invariants: active = lease = none, nothing
// acknowledged is lost, each successful end was counted once.
func (r *rig) atRest(limit time.Duration) {
	r.t.Helper()
	ctx := r.t.Context()
	deadline := time.Now().Add(limit)
	for {
		pending, err := r.rdb.LLen(ctx, wire.PendingKey(q)).Result()
		active := r.rdb.LLen(ctx, wire.ActiveKey(q)).Val()
		if err == nil && pending+active == 0 {
			break
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("not at rest within %v: %d pending, %d active, %v", limit, pending, active, err)
		}
		pause(ctx, 10*time.Millisecond)
	}
	leases := r.rdb.ZRange(ctx, wire.LeaseKey(q), 0, -1).Val()
	if len(leases) > 0 {
		r.t.Errorf("at rest: nothing is active, but there are leases %v", leases)
	}
	if lost := r.lost(); len(lost) > 0 {
		r.t.Errorf("at rest: %d acknowledged jobs are lost: %v", len(lost), lost[:min(len(lost), 10)])
	}
	r.bodies()
}

// atRestBut is atRest, where some jobs are known to have ended without success.
func (r *rig) atRestBut(limit time.Duration, ended ...string) {
	r.t.Helper()
	r.mu.Lock()
	for _, id := range ended {
		delete(r.acked, id)
	}
	r.mu.Unlock()
	r.drained(limit)
}

// bodies asserts that no job's hash is left that stands in no list.
func (r *rig) bodies() {
	r.t.Helper()
	queued := r.queued()
	iter := r.rdb.Scan(r.t.Context(), 0, wire.JobPrefix(q)+"*", 1000).Iterator()
	for iter.Next(r.t.Context()) {
		if id := iter.Val()[len(wire.JobPrefix(q)):]; !queued[id] {
			r.t.Errorf("at rest: job %s has a body and stands in no list", id)
		}
	}
}

// counted asserts asynq's counters.
func (r *rig) counted(processed, failed int) {
	r.t.Helper()
	ctx := r.t.Context()
	p, _ := r.rdb.Get(ctx, wire.ProcessedTotalKey(q)).Int()
	f, _ := r.rdb.Get(ctx, wire.FailedTotalKey(q)).Int()
	if p != processed || f != failed {
		r.t.Errorf("counters: %d processed and %d failed, observed were %d and %d", p, f, processed, failed)
	}
}

// pause waits for a moment between two looks at what gives no signal.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// eventually polls a state that gives no signal.
func eventually(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
		pause(t.Context(), 5*time.Millisecond)
	}
}

// held waits until the workers run all the jobs.
func (r *rig) running(ids []string) {
	r.t.Helper()
	r.ledger.until(patience, "the jobs run", func(h history) bool {
		return !slices.ContainsFunc(ids, func(id string) bool { return len(h.starts[id]) == 0 })
	})
}
