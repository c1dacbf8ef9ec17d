package guard

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/problem"
	"github.com/bellhop-dev/bellhop/internal/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bundle is a guard with some routes behind it, on a Redis of its own.
type bundle struct {
	*Guard
	t       *testing.T
	rdb     redis.UniversalClient
	store   *keys.Store
	mux     *http.ServeMux
	handler http.Handler
	log     *logged
	seen    *observed
}

func setup(t *testing.T, cfg Config) *bundle {
	t.Helper()
	return setupOn(t, redistest.New(t), cfg)
}

func setupOn(t *testing.T, rdb redis.UniversalClient, cfg Config) *bundle {
	t.Helper()
	b := &bundle{t: t, rdb: rdb, store: keys.NewStore(rdb, keys.Config{}), mux: http.NewServeMux(), log: &logged{}, seen: &observed{}}
	var err error
	b.Guard, err = New(cfg, Deps{
		Redis: rdb, Keys: b.store, Observer: b.seen,
		Log: slog.New(slog.NewJSONHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	b.handler = b.Wrap(b.mux)
	b.mux.HandleFunc("GET /open", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "open") })
	for _, s := range keys.Scopes() {
		b.mux.Handle("POST /"+string(s)+"/{id}", b.Authorize(s, http.HandlerFunc(echo)))
	}
	return b
}

// echo answers with the body's length, as a handler that reads all of it does.
func echo(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "cannot read the body", http.StatusInternalServerError)
		return
	}
	key, _ := keys.FromContext(r.Context())
	_ = json.NewEncoder(w).Encode(map[string]any{"bytes": len(data), "key": key.Name})
}

func (b *bundle) key(k keys.Key) string {
	b.t.Helper()
	token, _, err := b.store.Create(b.t.Context(), k)
	if err != nil {
		b.t.Fatal(err)
	}
	return token
}

type setting func(*http.Request)

func bearer(token string) setting { return header("Authorization", "Bearer "+token) }

func header(name, value string) setting { return func(r *http.Request) { r.Header.Add(name, value) } }

func from(addr string) setting { return func(r *http.Request) { r.RemoteAddr = addr } }

func (b *bundle) do(method, target string, body io.Reader, settings ...setting) *httptest.ResponseRecorder {
	b.t.Helper()
	r := httptest.NewRequestWithContext(b.t.Context(), method, target, body)
	for _, s := range settings {
		s(r)
	}
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, r)
	return w
}

// problemOf reads a problem, and checks that it is one.
func problemOf(t *testing.T, w *httptest.ResponseRecorder, status int) problem.Problem {
	t.Helper()
	var p problem.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != status || p.Status != status || w.Header().Get("Content-Type") != problem.ContentType || p.Detail == "" {
		t.Fatalf("want a problem of status %d, got %d %v: %s", status, w.Code, w.Header(), w.Body)
	}
	return p
}

// logged keeps what is logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// lines returns the entries with this message.
func (l *logged) lines(t *testing.T, msg string) []map[string]any {
	t.Helper()
	var found []map[string]any
	for line := range strings.Lines(l.String()) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatal(err)
		}
		if entry["msg"] == msg {
			found = append(found, entry)
		}
	}
	return found
}

// observed keeps what an observer is told.
type observed struct {
	mu       sync.Mutex
	inFlight int
	done     []string
	rejected map[Reason]int
}

func (o *observed) RequestStarted() { o.mu.Lock(); defer o.mu.Unlock(); o.inFlight++ }

func (o *observed) RequestDone(route, method string, status int, _ time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.inFlight--
	o.done = append(o.done, method+" "+route+" "+http.StatusText(status))
}

func (o *observed) Rejected(r Reason) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.rejected == nil {
		o.rejected = make(map[Reason]int)
	}
	o.rejected[r]++
}

func (o *observed) count(r Reason) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.rejected[r]
}

// eventually polls what sends no signal.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30s: %s", what)
		}
		<-tick.C
	}
}

func every(t *testing.T, d time.Duration, until <-chan struct{}, do func(context.Context)) {
	t.Helper()
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-until:
			return
		case <-tick.C:
			do(t.Context())
		}
	}
}
