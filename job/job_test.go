package job_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/queue"
)

type welcome struct {
	UserID string   `json:"user_id"`
	Tags   []string `json:"tags,omitempty"`
	Age    int      `json:"age,omitempty"`
}

var sendWelcome = job.Define[welcome]("email:welcome", job.Queue("mail"), job.MaxRetry(8), job.Timeout(30*time.Second))

// The stock inspector is the judge of what we store.
func inspect(t *testing.T, rdb redis.UniversalClient, info *job.Info) *asynq.TaskInfo {
	t.Helper()
	got, err := asynq.NewInspectorFromRedisClient(rdb).GetTaskInfo(info.Queue, info.ID)
	if err != nil {
		t.Fatalf("the inspector does not find job %s: %v", info.ID, err)
	}
	return got
}

func TestEnqueueIsWhatAsynqStores(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		client := job.NewClient(rdb)
		info, err := sendWelcome.Enqueue(t.Context(), client, welcome{UserID: "42"}, job.Header("trace", "abc"))
		if err != nil {
			t.Fatal(err)
		}
		if info.State != queue.Pending || info.Queue != "mail" {
			t.Errorf("stored as %+v", info)
		}
		stock, err := asynq.NewClientFromRedisClient(rdb).Enqueue(
			asynq.NewTaskWithHeaders("email:welcome", []byte(`{"user_id":"42"}`), map[string]string{"trace": "abc"}),
			asynq.Queue("mail"), asynq.MaxRetry(8), asynq.Timeout(30*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := inspect(t, rdb, info), inspect(t, rdb, &job.Info{Queue: stock.Queue, ID: stock.ID})
		if diff := cmp.Diff(theirs, ours, cmpopts.IgnoreFields(asynq.TaskInfo{}, "ID", "NextProcessAt")); diff != "" {
			t.Errorf("stock and ours differ (-stock +ours):\n%s", diff)
		}
	})
}

func TestTimesAreNeverEarlyNorCut(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		client := job.NewClient(rdb)
		at := time.Now().Add(time.Hour).Truncate(time.Second).Add(300 * time.Millisecond)
		info, err := sendWelcome.Enqueue(t.Context(), client, welcome{UserID: "1"},
			job.At(at), job.Timeout(500*time.Millisecond), job.Deadline(at.Add(time.Minute)), job.Retention(1500*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		got := inspect(t, rdb, info)
		if info.State != queue.Scheduled || !info.At.Equal(at) || got.NextProcessAt.Before(at) || got.NextProcessAt.After(at.Add(time.Second)) {
			t.Errorf("to run at %v, stored for %v (%+v)", at, got.NextProcessAt, info)
		}
		if got.Timeout != time.Second || got.Retention != 2*time.Second || got.Deadline.Before(at.Add(time.Minute)) {
			t.Errorf("timeout %v retention %v deadline %v", got.Timeout, got.Retention, got.Deadline)
		}
		user, _, limits := job.Open(got.Headers)
		if limits.Timeout != 500*time.Millisecond || !limits.Deadline.Equal(at.Add(time.Minute)) || len(user) != 0 {
			t.Errorf("exact limits %+v, headers %v", limits, user)
		}
	})
}

func TestDuplicates(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, client := t.Context(), job.NewClient(rdb)
		event := job.Event{ID: "e", Source: "/s", Type: "t", Trigger: "rule", StreamID: "1700000000000-0", StoredAt: time.UnixMilli(1700000000000)}
		for name, opt := range map[string]job.Option{
			"id": job.ID("one"), "unique": job.Unique(time.Minute), "event": job.ForEvent(event),
		} {
			payload := welcome{UserID: name}
			first, err := sendWelcome.Enqueue(ctx, client, payload, opt)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			_, err = sendWelcome.Enqueue(ctx, client, payload, opt)
			var duplicate *job.DuplicateError
			if !errors.Is(err, job.ErrDuplicate) || !errors.As(err, &duplicate) || duplicate.ID != first.ID {
				t.Errorf("%s: the second one answers %v, want a duplicate of %s", name, err, first.ID)
			}
		}

		// An event's job stays a duplicate once it is done and gone; forgetting the event frees it.
		inspector := asynq.NewInspectorFromRedisClient(rdb)
		id := event.StreamID + "-" + event.Trigger
		if err := inspector.DeleteTask("mail", id); err != nil {
			t.Fatal(err)
		}
		if _, err := sendWelcome.Enqueue(ctx, client, welcome{}, job.ForEvent(event)); !errors.Is(err, queue.ErrHasFired) {
			t.Errorf("a finished job of the event was stored again: %v", err)
		}
		if err := queue.New(rdb).ForgetFired(ctx, event.StoredAt.Add(time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := sendWelcome.Enqueue(ctx, client, welcome{}, job.ForEvent(event)); err != nil {
			t.Errorf("after the event was forgotten: %v", err)
		}
	})
}

// A match that was refused as not unique is settled: its event, delivered again after the lock has gone, does not fire.
func TestRefusedMatchStaysRefused(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, client := t.Context(), job.NewClient(rdb)
		first, err := sendWelcome.Enqueue(ctx, client, welcome{UserID: "a"}, job.Unique(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		event := job.ForEvent(job.Event{ID: "e", Source: "/s", Type: "t", Trigger: "rule", StreamID: "1700000000000-0", StoredAt: time.UnixMilli(1700000000000)})
		if _, err := sendWelcome.Enqueue(ctx, client, welcome{UserID: "a"}, job.Unique(time.Hour), event); !errors.Is(err, queue.ErrNotUnique) {
			t.Fatalf("got %v", err)
		}
		if err := asynq.NewInspectorFromRedisClient(rdb).DeleteTask(first.Queue, first.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := sendWelcome.Enqueue(ctx, client, welcome{UserID: "a"}, job.Unique(time.Hour), event); !errors.Is(err, queue.ErrHasFired) {
			t.Errorf("got %v", err)
		}
	})
}

// A unique job whose id is taken must not leave its lock behind.
func TestDuplicateIDTakesNoLock(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	ctx, client := t.Context(), job.NewClient(rdb)
	if _, err := sendWelcome.Enqueue(ctx, client, welcome{UserID: "a"}, job.ID("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := sendWelcome.Enqueue(ctx, client, welcome{UserID: "b"}, job.ID("x"), job.Unique(time.Hour)); !errors.Is(err, queue.ErrIDTaken) {
		t.Fatalf("got %v", err)
	}
	if _, err := sendWelcome.Enqueue(ctx, client, welcome{UserID: "b"}, job.Unique(time.Hour)); err != nil {
		t.Errorf("a lock was left behind: %v", err)
	}
}

func TestEnqueueManyAnswersForEach(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		client := job.NewClient(rdb)
		var requests []job.Request
		for i := range 1200 {
			r, err := sendWelcome.Request(welcome{UserID: fmt.Sprint(i)}, job.Queue([]string{"a", "b"}[i%2]), job.ID(fmt.Sprint("id-", i-i%3)))
			if err != nil {
				t.Fatal(err)
			}
			requests = append(requests, r)
		}
		// Every third id is new in its queue; of the two that repeat it, one goes to the same queue.
		stored, duplicates := 0, 0
		for i, r := range client.EnqueueMany(t.Context(), requests) {
			switch {
			case r.Err == nil && r.Info.ID == fmt.Sprint("id-", i-i%3):
				stored++
			case errors.Is(r.Err, job.ErrDuplicate):
				duplicates++
			default:
				t.Fatalf("item %d: %+v", i, r)
			}
		}
		if stored != 800 || duplicates != 400 {
			t.Errorf("%d stored, %d duplicates", stored, duplicates)
		}
		a, b := rdb.LLen(t.Context(), "asynq:{a}:pending").Val(), rdb.LLen(t.Context(), "asynq:{b}:pending").Val()
		if a+b != 800 {
			t.Errorf("%d + %d jobs are pending", a, b)
		}
	})
}

// A payload that can't be encoded decides for itself alone, and each job is what Enqueue would have stored.
func TestEnqueueManyIsEnqueue(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		client := job.NewClient(rdb)
		scale := job.Define[map[string]any]("scale", job.Timeout(1500*time.Millisecond), job.Unique(time.Hour))
		payloads := []map[string]any{{"at": "<1>"}, {"at": math.NaN()}, {"at": 2}, nil, {"at": 2}}
		seen := make(map[string]bool)
		for i, r := range scale.EnqueueMany(t.Context(), client, payloads, job.Header("k", "v"), job.In(time.Hour)) {
			switch i {
			case 1:
				if r.Err == nil || !strings.Contains(r.Err.Error(), "encode payload") {
					t.Errorf("NaN: %v", r.Err)
				}
				continue
			case 4:
				if !errors.Is(r.Err, queue.ErrNotUnique) {
					t.Errorf("an equal payload: %v", r.Err)
				}
				continue
			}
			if r.Err != nil || seen[r.Info.ID] {
				t.Fatalf("payload %d: %+v", i, r)
			}
			seen[r.Info.ID] = true
			many := stored(t, rdb, r.Info)
			if got, err := asynq.NewInspectorFromRedisClient(rdb).GetTaskInfo(r.Info.Queue, r.Info.ID); err != nil || got.State != asynq.TaskStateScheduled {
				t.Errorf("the inspector finds %+v, %v", got, err)
			}
			one, err := scale.Enqueue(t.Context(), client, payloads[i], job.Header("k", "v"), job.In(time.Hour), job.Queue("other"), job.ID(r.Info.ID))
			if err != nil {
				t.Fatal(err)
			}
			want := stored(t, rdb, one)
			want.Queue, want.UniqueKey = many.Queue, strings.Replace(want.UniqueKey, "{other}", "{default}", 1)
			if diff := cmp.Diff(want, many); diff != "" {
				t.Errorf("payload %d: %s", i, diff)
			}
		}
	})
}

// stored is a job's message in Redis.
func stored(t *testing.T, rdb redis.UniversalClient, info *job.Info) *wire.Message {
	t.Helper()
	m, err := wire.Decode([]byte(rdb.HGet(t.Context(), wire.JobKey(info.Queue, info.ID), "msg").Val()))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestRedisAwayIsAFailureNotADuplicate(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	client := job.NewClient(server.Client())
	server.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := sendWelcome.Enqueue(ctx, client, welcome{}); err == nil || errors.Is(err, job.ErrDuplicate) {
		t.Errorf("got %v", err)
	}
}

func TestDefinitionTravelsThroughJSON(t *testing.T) {
	t.Parallel()
	data, err := json.Marshal(sendWelcome.Definition())
	if err != nil {
		t.Fatal(err)
	}
	var d job.Definition
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sendWelcome.Definition().Defaults, d.Defaults); diff != "" {
		t.Error(diff)
	}
	for payload, want := range map[string]string{
		`{"user_id":"1"}`:           "",
		`{"user_id":"1","age":3}`:   "",
		`{"user_id":1}`:             `payload of email:welcome: field "user_id" is a number, want a string`,
		`{"age":3}`:                 `"user_id" is missing`,
		`{"user_id":"1","usr":"x"}`: `no field "usr" (it has user_id, age, tags)`,
		`{"user_id":"1"} {}`:        "more follows",
		``:                          "empty",
		`{`:                         "not JSON",
		strings.Repeat("[", 5000):   "nested deeper",
	} {
		_, err := d.Request([]byte(payload))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("payload %.40s: got %v, want %q", payload, err, want)
		}
	}
}

func TestBadOptionsAreRefused(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]job.Option{
		"queue": {job.Queue("{a}")}, "id": {job.ID("a\nb")}, "timeout": {job.Timeout(time.Microsecond)},
		"retry": {job.MaxRetry(-1)}, "retention": {job.Retention(-1)}, "unique": {job.Unique(0)},
		"header": {job.Header("bellhop-x", "")}, "group": {job.Group("")}, "policy": {job.Retry(job.Exponential(1, 2))},
	} {
		if _, err := sendWelcome.Request(welcome{}, opts...); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	_, err := sendWelcome.Request(welcome{}, job.Queue(" "), job.MaxRetry(-1))
	if err == nil || !strings.Contains(err.Error(), "queue") || !strings.Contains(err.Error(), "retry") {
		t.Errorf("not every fault is named: %v", err)
	}
}

func TestDefineRefusesWhatBelongsToOneJob(t *testing.T) {
	t.Parallel()
	for name, define := range map[string]func(){
		"in":       func() { job.Define[welcome]("a", job.In(time.Second)) },
		"id":       func() { job.Define[welcome]("a", job.ID("x")) },
		"name":     func() { job.Define[welcome]("a b") },
		"type":     func() { job.Define[struct{ F func() }]("a") },
		"no Redis": func() { job.NewClient(nil) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: taken", name)
				}
			}()
			define()
		}()
	}
}

// A payload's own MarshalJSON may want more than a zero value.
func TestDefineTakesWhatMarshalsItself(t *testing.T) {
	t.Parallel()
	job.Define[struct{ *time.Time }]("a")
}

func TestHandledByDecodesOrDiscards(t *testing.T) {
	t.Parallel()
	var got welcome
	route := sendWelcome.HandledBy(func(_ context.Context, p welcome) error { got = p; return nil })
	if err := route.Handle(t.Context(), &job.Job{Payload: []byte(`{"user_id":"7"}`)}); err != nil || got.UserID != "7" {
		t.Errorf("%v, %+v", err, got)
	}
	if err := route.Handle(t.Context(), &job.Job{Payload: []byte(`[]`)}); !job.IsDiscard(err) {
		t.Errorf("a payload of the wrong type gives %v", err)
	}
}

func TestExponentialStaysInBounds(t *testing.T) {
	t.Parallel()
	b := job.Exponential(time.Second, time.Minute)
	for n, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 7: time.Minute, 1 << 40: time.Minute} {
		for range 50 {
			if got := b(n, nil); got > want || got < want*4/5 {
				t.Fatalf("attempt %d waits %v, want at most %v and at least four fifths of it", n, got, want)
			}
		}
	}
}

func TestSetResultIsBounded(t *testing.T) {
	t.Parallel()
	j := &job.Job{ID: "x"}
	if err := j.SetResult(make([]byte, job.MaxResultBytes+1)); err == nil || j.Result() != nil {
		t.Error("a result beyond the bound is kept")
	}
	if err := j.SetResult(map[string]int{"a": 1}); err != nil || string(j.Result()) != `{"a":1}` {
		t.Errorf("%v %s", err, j.Result())
	}
}

type node struct {
	Children []node `json:"children"`
}

func TestSchemaOfARecursiveTypeTakesAnything(t *testing.T) {
	t.Parallel()
	tree := job.Define[node]("tree")
	if _, err := tree.Definition().Request([]byte(`{"children":[{"children":[]}]}`)); err != nil {
		t.Error(err)
	}
}

func FuzzSchemaCheck(f *testing.F) {
	f.Add([]byte(`{"user_id":"1"}`))
	f.Add([]byte(`{"user_id":{"a":[1,null]}}`))
	schema := sendWelcome.Definition().Schema
	f.Fuzz(func(t *testing.T, payload []byte) {
		if schema.Check(payload) != nil {
			return
		}
		var p welcome
		if err := json.Unmarshal(payload, &p); err != nil {
			t.Fatalf("the schema takes what its type does not: %v", err)
		}
	})
}

// A handler may hand the event that led to it on to other jobs, under a name of their own.
func TestEventHandedOn(t *testing.T) {
	t.Parallel()
	ctx, rdb := t.Context(), redistest.New(t)
	client := job.NewClient(rdb)
	event := job.Event{ID: "e", Source: "/s", Type: "t", Trigger: "rule", Group: "billing", StreamID: "1700000000000-0"}
	parent, err := sendWelcome.Enqueue(ctx, client, welcome{}, job.ForEvent(event))
	if err != nil || parent.ID != "1700000000000-0-billing:rule" {
		t.Fatal(parent, err)
	}
	msg, err := wire.Decode([]byte(rdb.HGet(ctx, wire.JobKey("mail", parent.ID), "msg").Val()))
	if err != nil {
		t.Fatal(err)
	}
	_, opened, _ := job.Open(msg.Headers)
	event.StoredAt = time.UnixMilli(1700000000000)
	if opened == nil || *opened != event {
		t.Fatalf("opened %+v, want %+v", opened, event)
	}
	if _, err := sendWelcome.Enqueue(ctx, client, welcome{}, job.ForEvent(*opened)); !errors.Is(err, queue.ErrHasFired) {
		t.Errorf("under the parent's trigger: %v", err)
	}
	opened.Trigger = "rule/child"
	if child, err := sendWelcome.Enqueue(ctx, client, welcome{}, job.ForEvent(*opened)); err != nil || child.ID != "1700000000000-0-billing:rule/child" {
		t.Errorf("under a trigger of its own: %+v, %v", child, err)
	}
	for _, z := range rdb.ZRangeWithScores(ctx, wire.FiredKey("mail"), 0, -1).Val() {
		if z.Score != 1700000000000 {
			t.Errorf("%v is forgotten with events of %v", z.Member, z.Score)
		}
	}
	for _, bad := range []job.Event{{ID: "e", StreamID: "1-0"}, {ID: "e", Trigger: "rule"}, {ID: "e", Trigger: "rule", StreamID: "soon"}} {
		if _, err := sendWelcome.Request(welcome{}, job.ForEvent(bad)); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

// The longest durations of Go are as good as for ever, and never a time in the past.
func TestEndlessDurations(t *testing.T) {
	t.Parallel()
	ctx, rdb := t.Context(), redistest.New(t)
	for name, d := range map[string]time.Duration{"most": math.MaxInt64, "nearly": math.MaxInt64 - 1, "seconds": time.Duration(math.MaxInt64).Truncate(time.Second)} {
		_, err := sendWelcome.Enqueue(ctx, job.NewClient(rdb), welcome{UserID: name}, job.ID(name), job.Retention(d), job.Timeout(d), job.Unique(d))
		if err != nil {
			t.Fatal(name, err)
		}
		msg, err := wire.Decode([]byte(rdb.HGet(ctx, wire.JobKey("mail", name), "msg").Val()))
		if err != nil {
			t.Fatal(err)
		}
		const century = 100 * 365 * 24 * 3600
		_, _, limits := job.Open(msg.Headers)
		if msg.Retention != century || msg.Timeout != century || limits.Timeout != 0 {
			t.Errorf("%s: retention %d s, timeout %d s, %v", name, msg.Retention, msg.Timeout, limits)
		}
		if ttl := rdb.PTTL(ctx, msg.UniqueKey).Val(); ttl < queue.LongestTime/2 {
			t.Errorf("%s: the lock holds for %v", name, ttl)
		}
	}
}

// What was never filled in is refused, or filled in: no job goes to a queue without a name.
func TestZeroValues(t *testing.T) {
	t.Parallel()
	ctx, rdb := t.Context(), redistest.New(t)
	client := job.NewClient(rdb)
	good, err := job.Definition{Name: "x"}.Request([]byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	results := client.EnqueueMany(ctx, []job.Request{{}, good, {}})
	if results[0].Err == nil || results[2].Err == nil {
		t.Errorf("empty requests were stored: %+v", results)
	}
	if info := results[1].Info; results[1].Err != nil || info.Queue != job.DefaultQueue || info.ID != good.ID() {
		t.Fatalf("%+v, %v", info, results[1].Err)
	}
	if got := inspect(t, rdb, results[1].Info); got.Timeout != job.DefaultTimeout || got.MaxRetry != job.DefaultMaxRetry {
		t.Errorf("%+v", got)
	}
	if once, err := (job.Definition{Name: "x", Defaults: job.Defaults{Queue: "mail"}}).Request([]byte(`{}`), job.ID("once")); err != nil {
		t.Error(err)
	} else if info, err := client.Enqueue(ctx, once); err != nil || inspect(t, rdb, info).MaxRetry != 0 {
		t.Errorf("no retries were asked for: %v", err)
	}
	for _, bad := range []job.Definition{{}, {Name: "x", Defaults: job.Defaults{Queue: "a b{"}}, {Name: "x", Defaults: job.Defaults{Retention: -1}}} {
		if _, err := bad.Request([]byte(`{}`)); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	if queues := rdb.SMembers(ctx, wire.AllQueues).Val(); len(queues) != 2 {
		t.Errorf("queues %q", queues)
	}
}
