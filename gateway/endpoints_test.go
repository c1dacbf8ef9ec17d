package gateway

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bellhop-dev/bellhop/endpoints"
	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/handlers"
	"github.com/bellhop-dev/bellhop/internal/problem"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
	"github.com/bellhop-dev/bellhop/worker"
)

// shop is a server that webhooks are delivered to, and a worker that does so.
type shop struct {
	*door
	status atomic.Int32
	state  *endpoints.Client
	jobs   *job.Client
}

func newShop(t *testing.T, d *door, cfg endpoints.Config) *shop {
	t.Helper()
	s := &shop{door: d, jobs: job.NewClient(d.rdb)}
	s.status.Store(http.StatusOK)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(int(s.status.Load()))
		_, _ = w.Write([]byte("so it is"))
	}))
	t.Cleanup(server.Close)
	var err error
	if s.state, err = endpoints.New(d.rdb, cfg); err != nil {
		t.Fatal(err)
	}
	routes, err := handlers.Routes(handlers.Config{Webhooks: handlers.WebhookConfig{
		Endpoints: []handlers.WebhookEndpoint{{Name: "shop", URL: server.URL + "/canary-path?canary-query", Secrets: []string{"whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="}}},
		Allow:     []string{strings.TrimPrefix(server.URL, "http://")}, Config: cfg,
	}}, handlers.Deps{Jobs: s.jobs, Endpoints: s.state, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	w, err := worker.New(d.rdb, worker.Config{Logger: slog.New(slog.DiscardHandler), Grace: time.Second}, routes...)
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
	return s
}

// deliver enqueues a delivery and returns its job's id.
func (s *shop) deliver() string {
	s.t.Helper()
	info, err := tasks.DeliverWebhook.Enqueue(s.t.Context(), s.jobs, tasks.WebhookDelivery{Endpoint: "shop", JSON: json.RawMessage(`{"canary":"payload"}`)},
		job.Retention(time.Hour))
	if err != nil {
		s.t.Fatal(err)
	}
	return info.ID
}

func (s *shop) endpoint(query string) EndpointState {
	s.t.Helper()
	a := s.call("GET", "/v1/endpoints/shop"+query, keys.Read, nil)
	if strings.Contains(string(a.body), "canary") {
		s.t.Errorf("it tells what was sent: %s", a.body)
	}
	return want[EndpointState](s.t, a, 200)
}

// await waits for a state of the endpoint.
func (s *shop) await(what string, ok func(EndpointState) bool) EndpointState {
	s.t.Helper()
	var last EndpointState
	eventually(s.t, what, func() bool {
		a := s.call("GET", "/v1/endpoints/shop", keys.Read, nil)
		last = EndpointState{}
		return a.status == http.StatusOK && json.Unmarshal(a.body, &last) == nil && ok(last)
	})
	return last
}

func TestEndpointsAreShownAndSwitched(t *testing.T) {
	t.Parallel()
	d := setup(t)
	s := newShop(t, d, endpoints.Config{Failures: 2, Cooldown: time.Hour})
	if page := want[EndpointPage](t, d.call("GET", "/v1/endpoints", keys.Read, nil), 200); len(page.Endpoints) != 0 || page.Next != "" {
		t.Errorf("%+v", page)
	}

	began := time.Now().Add(-time.Minute)
	first := s.deliver()
	got := s.await("the delivery", func(e EndpointState) bool { return e.Delivered == 1 })
	if got.Name != "shop" || got.State != "closed" || !strings.HasPrefix(got.Host, "http://127.0.0.1:") || got.LastSuccess.Before(began) || !got.LastFailure.IsZero() || got.Attempts != nil {
		t.Errorf("%+v", got)
	}

	s.status.Store(http.StatusInternalServerError)
	for n := range 2 {
		s.deliver()
		got = s.await("a failure", func(e EndpointState) bool { return e.Failures == n+1 })
	}
	if got.State != "open" || got.NextProbe.Before(time.Now().Add(50*time.Minute)) || got.LastFailure.Before(got.LastSuccess) || got.Failed != 2 {
		t.Errorf("%+v", got)
	}
	shown := s.endpoint("?attempts=2")
	if len(shown.Attempts) != 2 {
		t.Fatalf("%+v", shown)
	}
	if a := shown.Attempts[0]; a.Status != 500 || a.Answer != "so it is" || a.At.Before(began) || a.Attempt != 1 || a.Queue != "default" || a.DurationMS < 0 {
		t.Errorf("%+v", a)
	}
	if all := s.endpoint("?attempts=1000").Attempts; len(all) != 3 || all[2].Status != 200 || all[2].Job != first || !strings.HasPrefix(all[2].Message, "msg_") {
		t.Errorf("%+v", all)
	}

	// Switched off, a delivery ends at once, with the reason.
	off := want[EndpointState](t, d.call("POST", "/v1/endpoints/shop/disable", keys.Admin, `{"reason":" they moved "}`), 200)
	if off.State != "disabled" || off.Reason != "they moved" || off.Since.Before(began) {
		t.Errorf("%+v", off)
	}
	ended, fleet := s.deliver(), fleet.New(d.rdb)
	eventually(t, "the job ends", func() bool {
		j, err := fleet.Job(t.Context(), "default", ended)
		return err == nil && j.Dead() && strings.Contains(j.LastError, "they moved")
	})
	again := want[EndpointState](t, d.call("POST", "/v1/endpoints/shop/disable", keys.Admin, `{"reason":"for good"}`), 200)
	if again.Reason != "for good" {
		t.Errorf("%+v", again)
	}
	page := want[EndpointPage](t, d.call("GET", "/v1/endpoints?state=disabled", keys.Read, nil), 200)
	if diff := cmp.Diff([]EndpointState{again}, page.Endpoints); diff != "" || page.Next != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if page := want[EndpointPage](t, d.call("GET", "/v1/endpoints?state=open", keys.Read, nil), 200); len(page.Endpoints) != 0 {
		t.Errorf("%+v", page)
	}

	// Switched on, it is called again: its failures are forgotten.
	s.status.Store(http.StatusNoContent)
	if on := want[EndpointState](t, d.call("POST", "/v1/endpoints/shop/enable", keys.Admin, nil), 200); on.State != "closed" || on.Reason != "" || on.Failures != 0 {
		t.Errorf("%+v", on)
	}
	s.deliver()
	s.await("a delivery", func(e EndpointState) bool { return e.Delivered == 2 })
}

func TestEndpointPages(t *testing.T) {
	t.Parallel()
	d := setup(t)
	state, err := endpoints.New(d.rdb, endpoints.Config{})
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"a", "b.c", "shop", "url:0123"}
	for _, name := range names {
		if _, err := state.Disable(t.Context(), name, "test"); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for cursor := ""; ; {
		page := want[EndpointPage](t, d.call("GET", "/v1/endpoints?limit=3&cursor="+cursor, keys.Read, nil), 200)
		for _, e := range page.Endpoints {
			got = append(got, e.Name)
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	if diff := cmp.Diff(names, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	want[problem.Problem](t, d.call("GET", "/v1/endpoints?limit=501", keys.Read, nil), 422)
	want[EndpointState](t, d.call("GET", "/v1/endpoints/url:0123", keys.Read, nil), 200)
}

func TestEndpointProblems(t *testing.T) {
	t.Parallel()
	d := setup(t)
	for _, c := range []struct {
		method, path, body string
		status             int
		kind, place        string
	}{
		{"GET", "/v1/endpoints/none", "", 404, "unknown-endpoint", "name"},
		{"GET", "/v1/endpoints/none?attempts=5", "", 404, "unknown-endpoint", "name"},
		{"POST", "/v1/endpoints/none/enable", "", 404, "unknown-endpoint", "name"},
		{"POST", "/v1/endpoints/none/disable", `{"reason":"x"}`, 404, "unknown-endpoint", "name"},
		{"POST", "/v1/endpoints/none/disable", `{}`, 422, "invalid", "#"},
		{"POST", "/v1/endpoints/none/disable", `{"reason":"  "}`, 422, "invalid", "#/reason"},
		{"POST", "/v1/endpoints/none/disable", `{"raeson":"x","reason":"y"}`, 422, "invalid", "#/raeson"},
		{"POST", "/v1/endpoints/none/disable", `{"reason":7}`, 422, "invalid", "#/reason"},
		{"POST", "/v1/endpoints/none/disable", `{`, 400, "invalid", "#"},
		{"GET", "/v1/endpoints/a%7Bb", "", 422, "invalid", "name"},
		{"GET", "/v1/endpoints/" + strings.Repeat("a", 129), "", 422, "invalid", "name"},
		{"GET", "/v1/endpoints/none?attempts=1001", "", 422, "invalid", "attempts"},
		{"GET", "/v1/endpoints?state=off", "", 422, "invalid", "state"},
	} {
		var body any
		if c.body != "" {
			body = c.body
		}
		p := want[problem.Problem](t, d.call(c.method, c.path, keys.Admin, body), c.status)
		if len(p.Errors) == 0 || p.Errors[0].Pointer+p.Errors[0].Parameter != c.place || !strings.HasSuffix(p.Type, ":"+c.kind) {
			t.Errorf("%s %s %s: %+v", c.method, c.path, c.body, p)
		}
	}
	if n := d.rdb.Exists(t.Context(), "bellhop:{endpoints}:index").Val(); n != 0 {
		t.Error("a refused request has made an endpoint known")
	}
}
