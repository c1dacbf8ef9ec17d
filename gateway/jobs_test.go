package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/gateway/guard"
	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/problem"
	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/job"
)

func TestJobFromRequestToResult(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		d := setupOver(t, rdb)
		d.work(func(ctx context.Context, p greet) error {
			j, _ := job.FromContext(ctx)
			return j.SetResult(map[string]any{"said": strings.Repeat("hi ", p.Times) + p.Name, "tenant": j.Headers["tenant"]})
		})
		a := d.call("POST", "/v1/jobs", keys.Enqueue, `{"task":"test:greet","payload":{"name":"Ada","times":2},"headers":{"tenant":"acme"}}`)
		stored := want[StoredJob](t, a, http.StatusCreated)
		wantStored := StoredJob{ID: stored.ID, Task: "test:greet", Queue: "greetings", State: "pending"}
		if diff := cmp.Diff(wantStored, stored); diff != "" || stored.ID == "" {
			t.Errorf("stored (-want +got):\n%s", diff)
		}
		if location := a.header.Get("Location"); location != "/v1/jobs/"+stored.ID+"?queue=greetings" {
			t.Errorf("Location is %q", location)
		}
		status := want[JobStatus](t, d.call("GET", "/v1/jobs/"+stored.ID+"?wait=20s", keys.Read, nil), http.StatusOK)
		wantStatus := JobStatus{
			ID: stored.ID, Task: "test:greet", Queue: "greetings", State: "completed", Ended: true, Attempts: 1, MaxRetry: 3,
			Result: map[string]any{"said": "hi hi Ada", "tenant": "acme"},
		}
		if diff := cmp.Diff(wantStatus, status); diff != "" {
			t.Errorf("status (-want +got):\n%s", diff)
		}
		ttl := want[JobStatus](t, d.call("GET", a.header.Get("Location"), keys.Read, nil), http.StatusOK)
		if ttl.State != "completed" {
			t.Errorf("the job is not kept: %+v", ttl)
		}
	})
}

func TestOptionsOfAJob(t *testing.T) {
	t.Parallel()
	d := setup(t)
	at := time.Now().Add(time.Hour).Truncate(time.Millisecond).UTC()
	deadline := at.Add(time.Hour)
	a := d.call("POST", "/v1/jobs", keys.Enqueue, map[string]any{
		"task": "test:greet", "payload": greet{Name: "Ada"}, "queue": "other", "id": "a/b c"[:3], "at": at, "timeout": "1500ms", "deadline": deadline,
		"max_retry": 0, "retention": "90s", "unique": "1h", "headers": map[string]string{"k": "v"},
	})
	stored := want[StoredJob](t, a, http.StatusCreated)
	wantStored := StoredJob{ID: "a/b", Task: "test:greet", Queue: "other", State: "scheduled", At: at}
	if diff := cmp.Diff(wantStored, stored); diff != "" {
		t.Errorf("stored (-want +got):\n%s", diff)
	}
	status := want[JobStatus](t, d.call("GET", a.header.Get("Location"), keys.Read, nil), http.StatusOK)
	wantStatus := JobStatus{ID: "a/b", Task: "test:greet", Queue: "other", State: "scheduled", NextAt: at}
	if diff := cmp.Diff(wantStatus, status, cmpopts.EquateApproxTime(0)); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	again := want[StoredJob](t, d.call("POST", "/v1/jobs", keys.Enqueue, map[string]any{
		"task": "test:greet", "payload": greet{Name: "Ada"}, "queue": "other", "unique": "1h",
	}), http.StatusOK)
	if diff := cmp.Diff(StoredJob{ID: "a/b", Task: "test:greet", Queue: "other", Duplicate: true, Because: "unique"}, again); diff != "" {
		t.Errorf("an equal job (-want +got):\n%s", diff)
	}
	again = want[StoredJob](t, d.call("POST", "/v1/jobs", keys.Enqueue, map[string]any{
		"task": "test:greet", "payload": greet{Name: "Bob"}, "queue": "other", "id": "a/b",
	}), http.StatusOK)
	if diff := cmp.Diff(StoredJob{ID: "a/b", Task: "test:greet", Queue: "other", Duplicate: true, Because: "id"}, again); diff != "" {
		t.Errorf("the same id (-want +got):\n%s", diff)
	}

	group := want[StoredJob](t, d.call("POST", "/v1/jobs", keys.Enqueue, `{"task":"test:greet","payload":{"name":"x"},"group":"g","in":"0s"}`), http.StatusCreated)
	if group.State != "aggregating" {
		t.Errorf("a job of a group is %s", group.State)
	}
}

func TestRetentionOfJobs(t *testing.T) {
	t.Parallel()
	d := setup(t)
	d.work(func(context.Context, greet) error { return nil })
	for _, tc := range []struct {
		name, retention, key string
		least, most          time.Duration // 0: not kept
	}{
		{"an hour", "", "", 55 * time.Minute, time.Hour + time.Second},
		{"what was asked for", "10m", "", 9 * time.Minute, 10*time.Minute + time.Second},
		{"none", "0s", "", 0, 0},
		{"an hour with an Idempotency-Key", "0s", "k1", 55 * time.Minute, time.Hour + time.Second},
		{"longer with one", "2h", "k2", 115 * time.Minute, 2*time.Hour + time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			body := map[string]any{"task": "test:greet", "payload": greet{Name: tc.name}}
			if tc.retention != "" {
				body["retention"] = tc.retention
			}
			var headers []string
			if tc.key != "" {
				headers = append(headers, "Idempotency-Key: "+tc.key)
			}
			stored := want[StoredJob](t, d.call("POST", "/v1/jobs", keys.Enqueue, body, headers...), http.StatusCreated)
			if tc.most == 0 {
				eventually(t, "the job is gone", func() bool {
					return d.call("GET", "/v1/jobs/"+stored.ID, keys.Read, nil).status == http.StatusNotFound
				})
				return
			}
			want[JobStatus](t, d.call("GET", "/v1/jobs/"+stored.ID+"?wait=20s", keys.Read, nil), http.StatusOK)
			score, err := d.rdb.ZScore(t.Context(), "asynq:{greetings}:completed", stored.ID).Result()
			if err != nil {
				t.Fatal(err)
			}
			if kept := time.Until(time.Unix(int64(score), 0)); kept < tc.least || kept > tc.most {
				t.Errorf("it is kept for %v", kept)
			}
		})
	}
}

func TestWhatIsRefused(t *testing.T) {
	t.Parallel()
	d := setup(t)
	deep := strings.Repeat("[", 100_000)
	for _, tc := range []struct {
		name, body string
		status     int
		kind       string
		faults     []problem.Fault
	}{
		{"nothing", ``, 400, "", nil},
		{"no JSON", `{"task":`, 400, "invalid", []problem.Fault{{Pointer: "#", Detail: "it is not JSON: unexpected end of JSON input"}}},
		{"more than JSON", `{} {}`, 400, "invalid", []problem.Fault{{Pointer: "#", Detail: "it is not JSON: invalid character '{' after top-level value"}}},
		{"no UTF-8", "{\"task\":\"\xff\"}", 400, "invalid", []problem.Fault{{Pointer: "#", Detail: "it is not UTF-8, which JSON must be"}}},
		{"too deep", deep, 400, "invalid", []problem.Fault{{Pointer: "#", Detail: "it is not JSON: invalid character '[' exceeded max depth"}}},
		{"a list", `[]`, 422, "invalid", []problem.Fault{{Pointer: "#", Detail: "expected object"}}},
		{"no task", `{}`, 422, "invalid", []problem.Fault{{Pointer: "#", Detail: "expected required property task to be present"}}},
		{
			"a mistyped field", `{"task":"test:greet","retension":"1h"}`, 422, "invalid",
			[]problem.Fault{{Pointer: "#/retension", Detail: `there is no such field, did you mean "retention"?`}},
		},
		{
			"wrong types", `{"task":"test:greet","max_retry":"3","queue":7,"at":"soon"}`, 422, "invalid",
			[]problem.Fault{
				{Pointer: "#/at", Detail: "expected string to be RFC 3339 date-time"},
				{Pointer: "#/max_retry", Detail: "expected integer"},
				{Pointer: "#/queue", Detail: "expected string"},
			},
		},
		{
			"a mistyped task", `{"task":"test:great","payload":{"name":"x"}}`, 422, "unknown-task",
			[]problem.Fault{{Pointer: "#/task", Detail: `no worker has registered this task, did you mean "test:greet"?; GET /v1/tasks lists them`}},
		},
		{
			"a wrong payload", `{"task":"test:greet","payload":{"nam":"x"}}`, 422, "invalid",
			[]problem.Fault{{Pointer: "#/payload", Detail: `no field "nam" (it has name, times); field "name" is missing`}},
		},
		{"a deep payload", `{"task":"test:greet","payload":` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + `}`, 422, "invalid", nil},
		{
			"every option wrong", `{"task":"test:greet","payload":{"name":"x"},"queue":"a{b","id":"*","group":"a:b","in":"soon","at":"2030-01-01T00:00:00Z",
				"timeout":"1us","deadline":"1960-01-01T00:00:00Z","retention":"-1s","unique":"1","headers":{"bellhop-x":"y"}}`, 422, "invalid",
			[]problem.Fault{
				{Pointer: "#/at", Detail: "in and at exclude each other: leave one of them out"},
				{Pointer: "#/deadline", Detail: ""},
				{Pointer: "#/group", Detail: ""},
				{Pointer: "#/headers", Detail: ""},
				{Pointer: "#/id", Detail: ""},
				{Pointer: "#/in", Detail: "it is no duration: write it such as 500ms, 90s or 24h"},
				{Pointer: "#/queue", Detail: `queue "a{b" contains '{', which would break the keys in Redis`},
				{Pointer: "#/retention", Detail: "it must not be negative"},
				{Pointer: "#/timeout", Detail: ""},
				{Pointer: "#/unique", Detail: "it is no duration: write it such as 500ms, 90s or 24h"},
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			a := d.call("POST", "/v1/jobs", keys.Enqueue, tc.body)
			p := want[problem.Problem](t, a, tc.status)
			if got := a.header.Get("Content-Type"); got != problem.ContentType {
				t.Errorf("content type is %q", got)
			}
			if tc.kind != "" && p.Type != "urn:bellhop:problem:"+tc.kind || p.Status != tc.status || p.Title == "" || p.Detail == "" {
				t.Errorf("problem is %+v", p)
			}
			if tc.faults == nil {
				return
			}
			got := append([]problem.Fault{}, p.Errors...)
			for i := range got {
				for _, f := range tc.faults {
					if f.Pointer == got[i].Pointer && f.Detail == "" && got[i].Detail != "" {
						got[i].Detail = "" // what job says of it is tested there
					}
				}
			}
			byPlace := cmpopts.SortSlices(func(a, b problem.Fault) bool { return a.Pointer < b.Pointer })
			if diff := cmp.Diff(tc.faults, got, byPlace); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
	if n, err := d.rdb.Exists(t.Context(), "asynq:{greetings}:pending").Result(); err != nil || n != 0 {
		t.Errorf("something was stored: %d, %v", n, err)
	}
	for _, tc := range []struct {
		contentType string
		status      int
	}{{"text/plain", 415}, {"application/vnd.acme+json", 201}, {"application/json; charset=utf-8", 201}, {"", 201}} {
		a := d.call("POST", "/v1/jobs", keys.Enqueue, `{"task":"test:greet","payload":{"name":"x"}}`, "Content-Type: "+tc.contentType)
		if a.status != tc.status {
			t.Errorf("Content-Type %q: %d %s", tc.contentType, a.status, a.body)
		}
	}
}

func TestBatchAnswersForEach(t *testing.T) {
	t.Parallel()
	d := setup(t, func(c *Config, _ *Deps) { c.MaxBatch = 6 })
	item := func(name, id string) map[string]any {
		return map[string]any{"task": "test:greet", "payload": greet{Name: name}, "id": id}
	}
	all := want[BatchAnswer](t, d.call("POST", "/v1/jobs/batch", keys.Enqueue, map[string]any{"jobs": []any{item("a", "1"), item("b", "2")}}), 200)
	if all.Stored != 2 || all.Results[1].Job.ID != "2" || all.Results[1].Status != 201 {
		t.Errorf("answer is %+v", all)
	}
	a := d.call("POST", "/v1/jobs/batch", keys.Enqueue, map[string]any{"jobs": []any{
		item("a", "1"), item("c", "3"), "nonsense",
		map[string]any{"task": "test:great"},
		map[string]any{"task": "test:greet", "payload": 1, "max_retry": 1},
		map[string]any{"task": "test:greet", "max_retry": "x"},
	}})
	mixed := want[BatchAnswer](t, a, http.StatusMultiStatus)
	var got []string
	for _, r := range mixed.Results {
		line := fmt.Sprint(r.Status)
		if r.Job != nil {
			line += fmt.Sprint(" ", r.Job.ID, " ", r.Job.Duplicate)
		}
		if r.Problem != nil {
			line += " " + strings.TrimPrefix(r.Problem.Type, "urn:bellhop:problem:") + " " + r.Problem.Errors[0].Pointer
		}
		got = append(got, line)
	}
	wanted := []string{
		"200 1 true", "201 3 false", "422 invalid #/jobs/2", "422 unknown-task #/jobs/3/task", "422 invalid #/jobs/4/payload", "422 invalid #/jobs/5/max_retry",
	}
	if diff := cmp.Diff(wanted, got); diff != "" || mixed.Stored != 1 || mixed.Duplicates != 1 || mixed.Failed != 4 {
		t.Errorf("%d stored, %d duplicates, %d failed (-want +got):\n%s", mixed.Stored, mixed.Duplicates, mixed.Failed, diff)
	}
	for body, pointer := range map[string]string{
		`{"jobs":[]}`: "#/jobs", `{}`: "#/jobs", `{"job":[]}`: "#/job", `{"jobs":[1,2,3,4,5,6,7]}`: "#/jobs", `{"jobs":7}`: "#/jobs",
	} {
		p := want[problem.Problem](t, d.call("POST", "/v1/jobs/batch", keys.Enqueue, body), 422)
		if p.Errors[0].Pointer != pointer {
			t.Errorf("%s: %+v", body, p)
		}
	}
	want[problem.Problem](t, d.call("POST", "/v1/jobs/batch", keys.Enqueue, `nonsense`), 400)
}

func TestWaitIsWoken(t *testing.T) {
	t.Parallel()
	d := setup(t)
	started, release := make(chan struct{}), make(chan struct{})
	d.work(func(ctx context.Context, _ greet) error {
		close(started)
		select {
		case <-release:
		case <-ctx.Done():
		}
		return errors.Join(job.Discard("no such house"))
	})
	stored := want[StoredJob](t, d.call("POST", "/v1/jobs", keys.Enqueue, `{"task":"test:greet","payload":{"name":"x"}}`), 201)
	<-started
	running := want[JobStatus](t, d.call("GET", "/v1/jobs/"+stored.ID+"?wait=10ms", keys.Read, nil), 200)
	if running.State != "active" || running.Ended || running.Attempts != 1 {
		t.Errorf("running: %+v", running)
	}
	answered := make(chan answer, 1)
	go func() {
		a, err := d.try(context.WithoutCancel(t.Context()), "GET", "/v1/jobs/"+stored.ID+"?wait=25s&queue=greetings", keys.Read, nil)
		if err != nil {
			t.Error(err)
		}
		answered <- a
	}()
	eventually(t, "somebody awaits the job", func() bool {
		n, err := d.rdb.HLen(t.Context(), "bellhop:{greetings}:awaited").Result()
		return err == nil && n == 1
	})
	close(release)
	ended := want[JobStatus](t, <-answered, 200)
	if ended.State != "dead" || !ended.Ended || !strings.Contains(ended.LastError, "no such house") {
		t.Errorf("ended: %+v", ended)
	}
}

func TestStatusRefuses(t *testing.T) {
	t.Parallel()
	d := setup(t)
	for path, place := range map[string]string{
		"/v1/jobs/none": "404 id", "/v1/jobs/none?queue=greetings": "404 id", "/v1/jobs/x?wait=soon": "422 wait", "/v1/jobs/x?wait=61s": "422 wait",
		"/v1/jobs/x?wait=-1s": "422 wait", "/v1/jobs/x?quee=a": "422 quee", "/v1/jobs/" + strings.Repeat("x", 300): "422 id",
	} {
		a := d.call("GET", path, keys.Read, nil)
		var p problem.Problem
		if p = want[problem.Problem](t, a, a.status); fmt.Sprint(a.status, " ", p.Errors[0].Parameter) != place {
			t.Errorf("%s: %d %+v", path, a.status, p)
		}
	}
	for _, q := range []string{"one", "two"} {
		want[StoredJob](t, d.call("POST", "/v1/jobs", keys.Enqueue, map[string]any{"task": "test:greet", "payload": greet{Name: q}, "queue": q, "id": "same"}), 201)
	}
	p := want[problem.Problem](t, d.call("GET", "/v1/jobs/same", keys.Read, nil), http.StatusConflict)
	if p.Type != "urn:bellhop:problem:ambiguous-job" || !strings.Contains(p.Detail, "one, two") {
		t.Errorf("ambiguous: %+v", p)
	}
	if s := want[JobStatus](t, d.call("GET", "/v1/jobs/same?queue=two", keys.Read, nil), 200); s.Queue != "two" {
		t.Errorf("got %+v", s)
	}
}

func TestDelete(t *testing.T) {
	t.Parallel()
	d := setup(t)
	store := func(body map[string]any) StoredJob {
		body["task"], body["payload"] = "test:greet", greet{Name: "x"}
		return want[StoredJob](t, d.call("POST", "/v1/jobs", keys.Enqueue, body), 201)
	}
	for name, body := range map[string]map[string]any{
		"pending":   {"queue": "q1", "unique": "1h"},
		"scheduled": {"queue": "q2", "in": "1h"},
		"group":     {"queue": "q3", "group": "g"},
	} {
		stored := store(body)
		if a := d.call("DELETE", "/v1/jobs/"+stored.ID, keys.Enqueue, nil); a.status != http.StatusNoContent || len(a.body) > 0 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		want[problem.Problem](t, d.call("GET", "/v1/jobs/"+stored.ID, keys.Read, nil), 404)
		want[problem.Problem](t, d.call("DELETE", "/v1/jobs/"+stored.ID, keys.Enqueue, nil), 404)
		store(body) // its lock is gone with it
	}

	started := make(chan struct{}, 1)
	d.work(func(ctx context.Context, _ greet) error {
		started <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})
	running := store(map[string]any{})
	<-started
	asked := want[JobStatus](t, d.call("DELETE", "/v1/jobs/"+running.ID, keys.Enqueue, nil), http.StatusAccepted)
	if asked.State != "active" {
		t.Errorf("asked: %+v", asked)
	}
	ended := want[JobStatus](t, d.call("GET", "/v1/jobs/"+running.ID+"?wait=20s", keys.Read, nil), 200)
	if ended.State != "dead" {
		t.Errorf("cancelled: %+v", ended)
	}
	if a := d.call("DELETE", "/v1/jobs/"+running.ID, keys.Enqueue, nil); a.status != http.StatusNoContent {
		t.Errorf("ended: %d %s", a.status, a.body)
	}
}

func TestTasks(t *testing.T) {
	t.Parallel()
	d := setup(t)
	list := want[TaskList](t, d.call("GET", "/v1/tasks", keys.Read, nil), 200)
	one := want[Task](t, d.call("GET", "/v1/tasks/test:greet", keys.Read, nil), 200)
	if diff := cmp.Diff([]Task{one}, list.Tasks); diff != "" {
		t.Errorf("list and task differ:\n%s", diff)
	}
	if one.Queue != "greetings" || one.MaxRetry != 3 || one.Timeout != "30m0s" || one.Retention != "1h0m0s" || !strings.Contains(string(one.Schema), `"name"`) {
		t.Errorf("task is %+v", one)
	}
	p := want[problem.Problem](t, d.call("GET", "/v1/tasks/test:gret", keys.Read, nil), 404)
	if !strings.Contains(p.Detail, `did you mean "test:greet"?`) {
		t.Errorf("problem is %+v", p)
	}

	// A task that a worker registers is known at once.
	late := job.Define[greet]("test:late")
	if err := d.gateway.deps.Fleet.Register(t.Context(), "b1", []job.Definition{late.Definition()}); err != nil {
		t.Fatal(err)
	}
	want[StoredJob](t, d.call("POST", "/v1/jobs", keys.Enqueue, `{"task":"test:late","payload":{"name":"x"}}`), 201)
	want[Task](t, d.call("GET", "/v1/tasks/test:late", keys.Read, nil), 200)
}

// A wait is longer than the server's time-outs, for reading and for writing.
func TestWaitOutlastsTheServersTimeouts(t *testing.T) {
	t.Parallel()
	d := setup(t, func(_ *Config, deps *Deps) {
		var err error
		deps.Guard, err = guard.New(guard.Config{ReadTimeout: 200 * time.Millisecond, WriteTimeout: 200 * time.Millisecond, ReadHeaderTimeout: 100 * time.Millisecond},
			guard.Deps{Redis: deps.Redis, Keys: keys.NewStore(deps.Redis, keys.Config{}), Log: deps.Logger})
		if err != nil {
			t.Fatal(err)
		}
	})
	stored := want[StoredJob](t, d.call("POST", "/v1/jobs", keys.Enqueue, greetAda), 201)
	began := time.Now()
	status := want[JobStatus](t, d.call("GET", "/v1/jobs/"+stored.ID+"?wait=700ms", keys.Read, nil), 200)
	if status.State != "pending" || time.Since(began) < 700*time.Millisecond {
		t.Errorf("after %v: %+v", time.Since(began), status)
	}
	again := want[JobStatus](t, d.call("GET", "/v1/jobs/"+stored.ID, keys.Read, nil), 200) // on the same connection
	if again.State != "pending" {
		t.Errorf("again: %+v", again)
	}
}

// The client of a wait goes away: nothing of it stays behind.
func TestWaitEndsWithItsClient(t *testing.T) {
	t.Parallel()
	d := setup(t)
	stored := want[StoredJob](t, d.call("POST", "/v1/jobs", keys.Enqueue, greetAda), 201)
	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, err := d.try(ctx, "GET", "/v1/jobs/"+stored.ID+"?wait=50s", keys.Read, nil)
		gone <- err
	}()
	awaited := func(n int64) func() bool {
		return func() bool {
			got, err := d.rdb.HLen(t.Context(), "bellhop:{greetings}:awaited").Result()
			return err == nil && got == n
		}
	}
	eventually(t, "somebody awaits the job", awaited(1))
	leave()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	eventually(t, "nobody awaits the job", awaited(0))
}

// Results are told as what they are.
func TestResultsOfEveryKind(t *testing.T) {
	t.Parallel()
	for text, wanted := range map[string]string{
		"": `null`, `{"n":12345678901234567890}`: `{"n":12345678901234567890}`, "plain words": `"plain words"`, "\xff\xfe": `"//4="`, `"\ud800"`: `"\ud800"`,
	} {
		got, err := json.Marshal(resultOf([]byte(text)))
		if err != nil || string(got) != wanted {
			t.Errorf("%q is told as %s, want %s (%v)", text, got, wanted, err)
		}
	}
}
