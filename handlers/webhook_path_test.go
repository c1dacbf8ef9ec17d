package handlers_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/endpoints"
	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/handlers"
	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
	"github.com/bellhop-dev/bellhop/triggers"
	"github.com/bellhop-dev/bellhop/worker"
)

// path is a worker with the built-in tasks over a Redis of its own.
type path struct {
	*testing.T
	rdb    redis.UniversalClient
	jobs   *job.Client
	fleet  *fleet.Client
	state  *endpoints.Client
	events *events.Client
	watch  handlers.WebhookState // what the handlers get instead of state
}

func newPath(t *testing.T, rdb redis.UniversalClient, cfg endpoints.Config) *path {
	t.Helper()
	state, err := endpoints.New(rdb, cfg)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := events.NewClient(rdb, events.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return &path{T: t, rdb: rdb, jobs: job.NewClient(rdb), fleet: fleet.New(rdb), state: state, watch: state, events: stream}
}

func (p *path) logger() *slog.Logger { return slog.New(slog.NewTextHandler(p.Output(), nil)) } // shown if the test fails

func (p *path) routes(cfg handlers.Config) []job.Route {
	p.Helper()
	routes, err := handlers.Routes(cfg, handlers.Deps{Jobs: p.jobs, Endpoints: p.watch, Logger: p.logger()})
	if err != nil {
		p.Fatal(err)
	}
	return routes
}

// work runs a worker until the test ends.
func (p *path) work(concurrency int, routes []job.Route, rules ...triggers.Trigger) {
	p.Helper()
	w, err := worker.New(p.rdb, worker.Config{Concurrency: concurrency, Grace: 5 * time.Second, Logger: p.logger()}, routes...)
	if err != nil {
		p.Fatal(err)
	}
	if len(rules) > 0 {
		set, err := triggers.Compile(rules, triggers.TaskList(tasks.BuiltIn()...), triggers.Config{})
		if err != nil {
			p.Fatal(err)
		}
		feed, err := triggers.NewFeed(set, p.events, p.jobs, p.logger())
		if err != nil {
			p.Fatal(err)
		}
		w.Feed("triggers", feed)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(p.Context()))
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	p.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			p.Errorf("the worker ended with %v", err)
		}
	})
}

// eventually waits for a condition: it polls, since Redis does not tell.
func (p *path) eventually(what string, ok func() bool) {
	p.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); {
		if time.Now().After(end) {
			p.Fatalf("not within a minute: %s", what)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func (p *path) backlog() fleet.Backlog {
	p.Helper()
	b, err := p.fleet.Backlog(p.Context(), job.DefaultQueue)
	if err != nil {
		p.Fatal(err)
	}
	return b
}

// receiver counts what it gets by webhook-id.
type receiver struct {
	*httptest.Server
	status atomic.Int32

	mu  sync.Mutex
	got []received
	ids map[string]int
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{ids: make(map[string]int)}
	r.status.Store(http.StatusOK)
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		got := receive(req)
		r.mu.Lock()
		r.got = append(r.got, got)
		r.ids[got.Header.Get("Webhook-Id")]++
		r.mu.Unlock()
		status := int(r.status.Load())
		if status == 0 { // dead: it takes the call, and says nothing
			<-req.Context().Done()
			return
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(r.Close)
	return r
}

// held counts how many slots an endpoint holds at once.
type held struct {
	handlers.WebhookState
	endpoint  string
	now, most atomic.Int32
}

func (h *held) Enter(ctx context.Context, call endpoints.Call) (endpoints.Pass, error) {
	pass, err := h.WebhookState.Enter(ctx, call)
	if pass.Token != "" && call.Endpoint == h.endpoint {
		now := h.now.Add(1)
		for most := h.most.Load(); now > most && !h.most.CompareAndSwap(most, now); most = h.most.Load() {
		}
	}
	return pass, err
}

func (h *held) Leave(ctx context.Context, endpoint, token string, r endpoints.Report) (endpoints.Change, error) {
	if endpoint == h.endpoint {
		h.now.Add(-1)
	}
	return h.WebhookState.Leave(ctx, endpoint, token, r)
}

func (r *receiver) all() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

func (r *receiver) messages() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ids)
}

const fanOut = `
triggers:
  - name: orders-out
    on: com.acme.**
    run: webhook:fanout
    with:
      event: ${event}
`

// Event, trigger, fan-out, deliveries: each endpoint gets each event that it wants once, though each fan-out runs twice, the second time
// when its deliveries are done and gone, as after a crash.
func TestWebhookWholeWay(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		p := newPath(t, rdb, endpoints.Config{})
		billing, audit, other := newReceiver(t), newReceiver(t), newReceiver(t)
		routes := p.routes(handlers.Config{Webhooks: handlers.WebhookConfig{
			Allow: allowLoopback.Allow,
			Endpoints: []handlers.WebhookEndpoint{
				{Name: "billing", URL: billing.URL, Secrets: []string{secretA}, Events: []string{"com.acme.invoice.**"}},
				{Name: "audit", URL: audit.URL, Secrets: []string{secretC, secretB}, Events: []string{"com.nobody.x", "**"}, Send: "data"},
				{Name: "other", URL: other.URL, Secrets: []string{secretA}, Events: []string{"com.other.**"}},
				{Name: "off", URL: other.URL, Secrets: []string{secretA}, Events: []string{"**"}, Disabled: true},
			},
		}})
		const n = 20
		var twice atomic.Int32
		for i, r := range routes {
			if r.Definition.Name != tasks.FanOutWebhook.Name() {
				continue
			}
			routes[i].Handle = func(ctx context.Context, j *job.Job) error {
				if err := r.Handle(ctx, j); err != nil {
					return err
				}
				p.eventually("the deliveries are done", func() bool { return billing.messages() == n && audit.messages() == n && p.backlog().Pending == 0 })
				twice.Add(1)
				return r.Handle(ctx, j)
			}
		}
		rules, err := triggers.Parse("fan-out.yaml", []byte(fanOut))
		if err != nil {
			t.Fatal(err)
		}
		p.work(n+4, routes, rules...)
		want := make(map[string]string)
		for i := range n {
			data := fmt.Sprintf(`{"number":%d,"id":12345678901234567890}`, i)
			e, err := events.New("com.acme.invoice.paid", "/shop", []byte(data), events.ID(fmt.Sprint("e-", i)), events.ContentType("application/json"), events.Extension("tenant", "acme"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.events.Publish(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			want[e.ID] = data
		}
		p.eventually("each fan-out has run twice", func() bool {
			b := p.backlog()
			return twice.Load() == n && b.Pending+b.Active+b.Scheduled+b.Retry == 0
		})

		if b := p.backlog(); b.Completed != n { // the fan-outs alone: what kept them from a second delivery is the event's memory
			t.Errorf("%d completed jobs are kept, want the %d fan-outs", b.Completed, n)
		}
		got := make(map[string]string)
		for _, r := range billing.all() {
			if err := r.verify(secretA); err != nil {
				t.Error(err)
			}
			e, err := events.Decode([]byte(r.Body))
			if err != nil {
				t.Fatal(err)
			}
			if _, again := got[e.ID]; again || e.Type != "com.acme.invoice.paid" || e.Source != "/shop" || e.Extensions["tenant"] != "acme" {
				t.Errorf("event %+v", e)
			}
			got[e.ID] = string(e.Data)
		}
		plain := make(map[string]string)
		for _, r := range audit.all() {
			if err := errors.Join(r.verify(secretB), r.verify(secretC)); err != nil {
				t.Error(err)
			}
			plain[r.Header.Get("Ce-Id")] = r.Body
		}
		if diff := cmp.Diff(normal(want), normal(got)); diff != "" {
			t.Errorf("billing (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(normal(want), normal(plain)); diff != "" {
			t.Errorf("audit (-want +got):\n%s", diff)
		}
		if a, b, o := len(audit.all()), len(billing.all()), len(other.all()); a != n || b != n || o != 0 {
			t.Errorf("%d deliveries to audit, %d to billing, %d to other; want %d, %d and 0", a, b, o, n, n)
		}
		if attempts, err := p.state.Attempts(t.Context(), "billing", 0); err != nil || len(attempts) != n {
			t.Errorf("%d attempts are kept, %v", len(attempts), err)
		}
	})
}

// What is neither JSON nor text arrives as it was published, in both forms.
func TestWebhookOfBinaryData(t *testing.T) {
	t.Parallel()
	p := newPath(t, redistest.Embedded(t), endpoints.Config{})
	whole, data := newReceiver(t), newReceiver(t)
	rules, err := triggers.Parse("fan-out.yaml", []byte(fanOut))
	if err != nil {
		t.Fatal(err)
	}
	p.work(4, p.routes(handlers.Config{Webhooks: handlers.WebhookConfig{
		Allow: allowLoopback.Allow,
		Endpoints: []handlers.WebhookEndpoint{
			{Name: "whole", URL: whole.URL, Secrets: []string{secretA}, Events: []string{"**"}},
			{Name: "data", URL: data.URL, Secrets: []string{secretA}, Events: []string{"**"}, Send: "data"},
		},
	}}), rules...)
	picture := "\x89PNG\r\n\x1a\n\x00\xff"
	sent, err := events.New("com.acme.picture.taken", "/camera", []byte(picture), events.ID("p-1"), events.ContentType("image/png"), events.Extension("tenant", "acme"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.events.Publish(t.Context(), sent); err != nil {
		t.Fatal(err)
	}
	p.eventually("both are delivered", func() bool { return whole.messages() == 1 && data.messages() == 1 })
	got, err := events.Decode([]byte(whole.all()[0].Body))
	if diff := cmp.Diff(sent, got); diff != "" || err != nil {
		t.Errorf("%v (-sent +got):\n%s", err, diff)
	}
	r := data.all()[0]
	if r.Body != picture || r.Header.Get("Content-Type") != "image/png" || r.Header.Get("Ce-Id") != "p-1" || r.Header.Get("Ce-Tenant") != "acme" {
		t.Errorf("%q %v", r.Body, r.Header)
	}
	for _, r := range []received{r, whole.all()[0]} {
		if err := r.verify(secretA); err != nil {
			t.Error(err)
		}
	}
}

// normal is without what JSON leaves open: the order of an object's fields.
func normal(m map[string]string) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		letters := []byte(v)
		slices.Sort(letters)
		out[k] = string(letters)
	}
	return out
}

// Four slots, nine good endpoints and a dead one whose jobs come first and time out: at no time does it hold more than two of them, it is
// called but a few times, and none of its jobs is lost.
func TestWebhookDeadEndpoint(t *testing.T) {
	t.Parallel()
	const each, deadJobs = 30, 40
	p := newPath(t, redistest.New(t), endpoints.Config{})
	slots := &held{WebhookState: p.state, endpoint: "dead"}
	p.watch = slots
	dead := newReceiver(t)
	dead.status.Store(0)
	cfg := handlers.WebhookConfig{Allow: allowLoopback.Allow, Endpoints: []handlers.WebhookEndpoint{
		{Name: "dead", URL: dead.URL, Secrets: []string{secretA}, Timeout: 500 * time.Millisecond},
	}}
	var good []*receiver
	for i := range 9 {
		r := newReceiver(t)
		good = append(good, r)
		cfg.Endpoints = append(cfg.Endpoints, handlers.WebhookEndpoint{Name: fmt.Sprint("good-", i), URL: r.URL, Secrets: []string{secretA}})
	}
	enqueue := func(endpoint string, n int) {
		for _, r := range tasks.DeliverWebhook.EnqueueMany(t.Context(), p.jobs, slices.Repeat([]tasks.WebhookDelivery{{Endpoint: endpoint, JSON: 1}}, n)) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
	}
	enqueue("dead", deadJobs)
	for range each {
		for i := range good {
			enqueue(fmt.Sprint("good-", i), 1)
		}
	}
	begin := time.Now()
	p.work(4, p.routes(handlers.Config{Webhooks: cfg}))
	p.eventually("the good endpoints have it all", func() bool {
		return !slices.ContainsFunc(good, func(r *receiver) bool { return r.messages() < each })
	})
	took := time.Since(begin)
	p.eventually("the circuit is open", func() bool {
		s, err := p.state.State(t.Context(), "dead")
		return err == nil && s.Status == endpoints.StatusOpen && s.Running == 0
	})
	for i, r := range good {
		if got := len(r.all()); got != each {
			t.Errorf("good-%d got %d calls for %d jobs", i, got, each)
		}
	}
	calls, most := len(dead.all()), slots.most.Load()
	if most > 2 || calls > endpoints.DefaultFailures+1 {
		t.Errorf("the dead endpoint got %d calls, %d at once; want at most %d, 2 at once", calls, most, endpoints.DefaultFailures+1)
	}
	p.eventually("all its jobs rest", func() bool { // some come back now and then
		b := p.backlog()
		return b.Pending+b.Active == 0 && b.Scheduled+b.Retry == deadJobs && b.Dead == 0
	})
	t.Logf("%d deliveries in %v beside %d calls of the dead endpoint", 9*each, took.Round(time.Millisecond), calls)
}

// An endpoint that fails is given a rest, probed, and then gets what waited for it, each once.
func TestWebhookEndpointComesBack(t *testing.T) {
	t.Parallel()
	const n = 20
	p := newPath(t, redistest.New(t), endpoints.Config{Failures: 3, Cooldown: 200 * time.Millisecond, MaxCooldown: 400 * time.Millisecond})
	r := newReceiver(t)
	r.status.Store(http.StatusBadGateway)
	p.work(8, p.routes(handlers.Config{Webhooks: shop(r.URL)}))
	for range n {
		if _, err := tasks.DeliverWebhook.Enqueue(t.Context(), p.jobs, toShop()); err != nil {
			t.Fatal(err)
		}
	}
	p.eventually("a probe has failed", func() bool {
		s, err := p.state.State(t.Context(), "shop")
		return err == nil && s.Failed > 3
	})
	r.status.Store(http.StatusOK)
	failed := 0
	p.eventually("all is delivered", func() bool {
		s, err := p.state.State(t.Context(), "shop")
		failed = int(s.Failed)
		return err == nil && s.Delivered == n && s.Status == endpoints.StatusClosed
	})
	if got := len(r.all()); got != n+failed || r.messages() != n {
		t.Errorf("%d calls of %d messages, of which %d failed; want %d messages", got, r.messages(), failed, n)
	}
	if failed >= n {
		t.Errorf("%d calls of an endpoint that fails: its circuit was never open", failed)
	}
	t.Logf("%d calls failed before it was back", failed)
}
