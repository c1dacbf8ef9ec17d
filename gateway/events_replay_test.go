package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/handlers"
	"github.com/bellhop-dev/bellhop/internal/problem"
	"github.com/bellhop-dev/bellhop/tasks"
	"github.com/bellhop-dev/bellhop/worker"
)

// From the request over the job to the copies on the stream.
func TestReplay(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	d := setup(t, func(_ *Config, deps *Deps) {
		deps.Catalog = fleet.NewCatalog(deps.Fleet, log, tasks.BuiltIn()...)
	})
	stream := d.gateway.deps.Events
	for i := range 20 {
		want[PublishedEvent](t, structuredly(d, fmt.Sprintf(`{"specversion":"1.0","type":"com.acme.t%d","source":"/s","id":"e%d"}`, i%2, i)), 201)
	}
	w, err := worker.New(d.rdb, worker.Config{Queues: []worker.Queue{{Name: "default", Weight: 1}}, Logger: log},
		tasks.ReplayEvents.HandledBy(handlers.NewEvents(stream, log).Replay))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		running.Wait()
	})

	body := `{"type":"com.acme.t1","trigger":"mail","rate":1000}`
	a := d.call("POST", "/v1/events/replay", keys.Admin, body, "Idempotency-Key: k")
	started := want[StartedReplay](t, a, 202)
	if again := want[StartedReplay](t, d.call("POST", "/v1/events/replay", keys.Admin, body, "Idempotency-Key: k"), 202); again != started {
		t.Errorf("again %+v, first %+v", again, started)
	}
	if got, expected := a.header.Get("Location"), "/v1/jobs/"+started.JobID+"?queue=default"; got != expected {
		t.Errorf("Location is %q, want %q", got, expected)
	}
	status := want[JobStatus](t, d.call("GET", "/v1/jobs/"+started.JobID+"?queue=default&wait=30s", keys.Read, nil), 200)
	text, err := json.Marshal(status.Result)
	if err != nil {
		t.Fatal(err)
	}
	var result events.ReplayProgress
	if err := json.Unmarshal(text, &result); err != nil || status.State != "completed" || result.Published != 10 || !result.Done {
		t.Fatalf("the job is %+v, %v", status, err)
	}
	progress := want[events.ReplayProgress](t, d.call("GET", "/v1/events/replay/"+started.ID, keys.Read, nil), 200)
	if progress != result {
		t.Errorf("progress is %+v, the job's result %+v", progress, result)
	}
	page := want[EventPage](t, d.call("GET", "/v1/events?order=oldest&limit=100", keys.Read, nil), 200)
	if len(page.Events) != 30 {
		t.Fatalf("%d events on the stream, want 20 and 10 copies", len(page.Events))
	}
	for _, s := range page.Events[20:] {
		e, err := events.Decode(s.Event)
		if err != nil || e.ReplayedFor() != "mail" || e.Type != "com.acme.t1" {
			t.Errorf("copy %s: %v", s.Event, err)
		}
	}
	want[problem.Problem](t, d.call("GET", "/v1/events/replay/none", keys.Read, nil), 404)
}

func TestReplayRefuses(t *testing.T) {
	t.Parallel()
	d := setup(t)
	for body, place := range map[string]string{
		`{"typ":"a"}`:       "#",
		`{"type":"a.**.b"}`: "#/type",
		`{"rate":-1}`:       "#/rate",
		`{"rate":"fast"}`:   "#/rate",
		`{"stream_id":"x"}`: "#/stream_id",
		`{"from":"2026-01-02T00:00:00Z","until":"2026-01-01T00:00:00Z"}`: "#/until",
	} {
		p := want[problem.Problem](t, d.call("POST", "/v1/events/replay", keys.Admin, body), 422)
		if len(p.Errors) != 1 || p.Errors[0].Pointer != place || p.Errors[0].Detail == "" {
			t.Errorf("%s: %+v", body, p)
		}
	}
	want[problem.Problem](t, d.call("POST", "/v1/events/replay", keys.Admin, `{`), 400)
	// Here no worker serves the task, and the gateway doesn't know it.
	want[problem.Problem](t, d.call("POST", "/v1/events/replay", keys.Admin, `{}`), 503)
}

// What is not one whole object asks for nothing: read as far as it goes, it would ask for a replay of everything.
func TestReplayTakesOneObject(t *testing.T) {
	t.Parallel()
	for body, status := range map[string]int{`{} {"trigger":"a"}`: 400, `{}]`: 400, `{"trigger":`: 400, `null`: 422, `[]`: 422, `"x"`: 422} {
		if r, p := decodeReplay([]byte(body)); p == nil || p.Status != status || len(p.Errors) != 1 {
			t.Errorf("%s: %+v, %+v", body, r, p)
		}
	}
	if _, p := decodeReplay([]byte(" {} \n")); p != nil {
		t.Errorf("all of it: %v", p)
	}
}
