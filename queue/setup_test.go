package queue_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

func TestMain(m *testing.M) {
	// A closed client whose server is away ends its last attempt to dial within a second.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// q is the queue of most tests.
const q = "mail"

// bundle is one Redis with a client and a worker.
type bundle struct {
	t      *testing.T
	ctx    context.Context
	rdb    redis.UniversalClient
	client *queue.Client
	worker *queue.Worker
}

func setup(t *testing.T, rdb redis.UniversalClient) *bundle {
	t.Helper()
	client := queue.New(rdb)
	return &bundle{t: t, ctx: t.Context(), rdb: rdb, client: client, worker: newWorker(t, client, q)}
}

func newWorker(t testing.TB, client *queue.Client, queues ...string) *queue.Worker {
	t.Helper()
	name := strings.NewReplacer("/", "-", " ", "-", "#", "-").Replace(t.Name())
	w, err := client.NewWorker(name, queues...)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (b *bundle) other(name string) *queue.Worker {
	b.t.Helper()
	w, err := b.client.NewWorker(name, q)
	if err != nil {
		b.t.Fatal(err)
	}
	return w
}

// hooked is a client with a hook, and its server.
func hooked(t *testing.T, hook redis.Hook) (*redistest.Server, *redis.Client) {
	t.Helper()
	server := redistest.Start(t)
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr()})
	t.Cleanup(func() { _ = rdb.Close() })
	rdb.AddHook(hook)
	return server, rdb
}

// message is a plain job.
func message(id string) *wire.Message {
	return &wire.Message{Type: "mail:send", ID: id, Queue: q, Payload: []byte(`{"to":"` + id + `"}`), Retry: 3, Timeout: 60}
}

func (b *bundle) enqueue(ids ...string) {
	b.t.Helper()
	entries := make([]queue.Entry, len(ids))
	for i, id := range ids {
		entries[i] = queue.Entry{Message: message(id)}
	}
	b.store(entries...)
}

func (b *bundle) store(entries ...queue.Entry) {
	b.t.Helper()
	for i, s := range b.client.Enqueue(b.ctx, entries) {
		if s.Err != nil {
			b.t.Fatalf("enqueue %s: %v", entries[i].Message.ID, s.Err)
		}
	}
}

func (b *bundle) fetch(n int) queue.Fetched { b.t.Helper(); return b.fetchAs(b.worker, n) }

func (b *bundle) fetchAs(w *queue.Worker, n int) queue.Fetched {
	b.t.Helper()
	got, err := w.Fetch(b.ctx, q, n)
	if err != nil {
		b.t.Fatal(err)
	}
	return got
}

// take fetches exactly one job.
func (b *bundle) take() *queue.Job {
	b.t.Helper()
	got := b.fetch(1)
	if len(got.Jobs) != 1 {
		b.t.Fatalf("fetched %d jobs, want 1", len(got.Jobs))
	}
	return got.Jobs[0]
}

func (b *bundle) finish(ends ...queue.End) {
	b.t.Helper()
	for i, err := range b.worker.Finish(b.ctx, ends...) {
		if err != nil {
			b.t.Fatalf("end %d: %v", i, err)
		}
	}
}

func (b *bundle) hash(id string) map[string]string {
	b.t.Helper()
	h, err := b.rdb.HGetAll(b.ctx, wire.JobKey(q, id)).Result()
	if err != nil {
		b.t.Fatal(err)
	}
	return h
}

func (b *bundle) stored(id string) *wire.Message {
	b.t.Helper()
	m, err := wire.Decode([]byte(b.hash(id)["msg"]))
	if err != nil {
		b.t.Fatal(err)
	}
	return m
}

func (b *bundle) pending() []string {
	b.t.Helper()
	ids, err := b.rdb.LRange(b.ctx, wire.PendingKey(q), 0, -1).Result()
	if err != nil {
		b.t.Fatal(err)
	}
	return ids
}

// atRest asserts that nothing runs: no active job, no lease.
func (b *bundle) atRest() {
	b.t.Helper()
	for _, key := range []string{wire.ActiveKey(q), wire.LeaseKey(q)} {
		if n := b.rdb.Exists(b.ctx, key).Val(); n != 0 {
			b.t.Errorf("%s exists, though nothing runs", key)
		}
	}
}

// score is a member's score in a zset, -1 if it is not there.
func (b *bundle) score(key, id string) float64 {
	b.t.Helper()
	s, err := b.rdb.ZScore(b.ctx, key, id).Result()
	if errors.Is(err, redis.Nil) {
		return -1
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// lease makes a running job's lease end at a Unix second, whoever owns it.
func (b *bundle) lease(id string, end int64) {
	b.t.Helper()
	mark := wire.LeaseMark(b.score(wire.LeaseKey(q), id))
	b.rdb.ZAdd(b.ctx, wire.LeaseKey(q), redis.Z{Score: mark.Lease(end), Member: id})
}

// steal gives a running job to a worker that nobody knows of.
func (b *bundle) steal(id string) {
	b.t.Helper()
	score := wire.NewMark(4000, 77).Lease(int64(b.score(wire.LeaseKey(q), id)))
	b.rdb.ZAdd(b.ctx, wire.LeaseKey(q), redis.Z{Score: score, Member: id})
}

func (b *bundle) now() time.Time {
	b.t.Helper()
	now, err := b.rdb.Time(b.ctx).Result()
	if err != nil {
		b.t.Fatal(err)
	}
	return now
}

func idsOf(jobs []*queue.Job) []string {
	ids := make([]string, len(jobs))
	for i, j := range jobs {
		ids[i] = j.ID
	}
	return ids
}

// eventually polls a state that gives no signal.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatalf("the test ended before: %s", what)
		}
	}
}

func ids(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("job-%04d", i)
	}
	return out
}
