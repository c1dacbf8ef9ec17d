package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/bellhop-dev/bellhop/endpoints"
	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/gateway/guard"
	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/triggers"
	"github.com/bellhop-dev/bellhop/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit bounds every wait.
const limit = 30 * time.Second

// greet is the task of the tests.
type greet struct {
	Name  string `json:"name"`
	Times int    `json:"times,omitempty"`
}

var greetTask = job.Define[greet]("test:greet", job.Queue("greetings"), job.MaxRetry(3))

// door is a gateway that serves, over a Redis of its own.
type door struct {
	t       *testing.T
	rdb     redis.UniversalClient
	gateway *Gateway
	url     string
	tokens  map[keys.Scope]string
	server  *http.Server
	client  *http.Client
}

func setup(t *testing.T, change ...func(*Config, *Deps)) *door {
	t.Helper()
	return setupOver(t, redistest.New(t), change...)
}

func setupOver(t *testing.T, rdb redis.UniversalClient, change ...func(*Config, *Deps)) *door {
	t.Helper()
	stream, err := events.NewClient(rdb, events.Config{})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	store := keys.NewStore(rdb, keys.Config{})
	guarded, err := guard.New(guard.Config{}, guard.Deps{Redis: rdb, Keys: store, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	f := fleet.New(rdb)
	var cfg Config
	deps := Deps{
		Redis: rdb, Jobs: job.NewClient(rdb), Events: stream, Fleet: f, Guard: guarded, Logger: log,
		Catalog: fleet.NewCatalog(f, log, greetTask.Definition()),
	}
	if deps.Triggers, err = triggers.NewStore(rdb, deps.Catalog, triggers.Config{}); err != nil {
		t.Fatal(err)
	}
	if deps.Endpoints, err = endpoints.New(rdb, endpoints.Config{}); err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(&cfg, &deps)
	}
	g, err := New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	d := &door{t: t, rdb: rdb, gateway: g, tokens: make(map[keys.Scope]string)}
	for _, scope := range keys.Scopes() {
		token, _, err := store.Create(t.Context(), keys.Key{Name: string(scope), Scopes: []keys.Scope{scope}})
		if err != nil {
			t.Fatal(err)
		}
		d.tokens[scope] = token
	}
	d.serve(deps.Guard)
	return d
}

func (d *door) serve(guarded *guard.Guard) {
	d.t.Helper()
	l, err := new(net.ListenConfig).Listen(d.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		d.t.Fatal(err)
	}
	d.url = "http://" + l.Addr().String()
	d.server = guarded.Server(d.gateway.Handler())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := d.server.Serve(guarded.Listener(l)); !errors.Is(err, http.ErrServerClosed) {
			d.t.Error(err)
		}
	})
	transport := &http.Transport{}
	d.client = &http.Client{Transport: transport, Timeout: limit}
	d.t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = d.server.Close()
		serving.Wait()
	})
}

// answer is what came back.
type answer struct {
	t      *testing.T
	status int
	header http.Header
	body   []byte
}

// call sends a request with the key of a scope. body is JSON: a string as it is, nil none, anything else is marshalled. Headers are "Name: value".
func (d *door) call(method, path string, scope keys.Scope, body any, headers ...string) answer {
	d.t.Helper()
	a, err := d.try(d.t.Context(), method, path, scope, body, headers...)
	if err != nil {
		d.t.Fatal(err)
	}
	return a
}

func (d *door) try(ctx context.Context, method, path string, scope keys.Scope, body any, headers ...string) (answer, error) {
	var r io.Reader
	switch body := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(body)
	default:
		text, err := json.Marshal(body)
		if err != nil {
			return answer{}, err
		}
		r = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, d.url+path, r)
	if err != nil {
		return answer{}, err
	}
	if scope != "" {
		req.Header.Set("Authorization", "Bearer "+d.tokens[scope])
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{d.t, resp.StatusCode, resp.Header, text}, err
}

// want fails unless the answer has the status, and decodes its body.
func want[T any](t *testing.T, a answer, status int) T {
	t.Helper()
	if a.status != status {
		t.Fatalf("status is %d, want %d: %s", a.status, status, a.body)
	}
	var v T
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatalf("%v in %q", err, a.body)
	}
	return v
}

// eventually waits for a state that sends no signal.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, limit)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// work runs a worker of the test's task until the test ends.
func (d *door) work(handle func(ctx context.Context, p greet) error) {
	d.t.Helper()
	w, err := worker.New(d.rdb, worker.Config{
		Queues: []worker.Queue{{Name: "greetings", Weight: 1}}, Logger: slog.New(slog.DiscardHandler),
		Grace: time.Second,
	}, greetTask.HandledBy(handle))
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(d.t.Context()))
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.Run(ctx); err != nil {
			d.t.Error(err)
		}
	})
	d.t.Cleanup(func() {
		stop()
		running.Wait()
	})
}
