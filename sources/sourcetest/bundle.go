package sourcetest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/internal/redistest"
)

// bundle is what a test of the suite has: a place at the broker, a Redis, and a gate before it.
type bundle struct {
	*testing.T
	Harness
	redis  *redistest.Server
	client *events.Client
	gate   *gate
	log    *record
}

func newBundle(t *testing.T, h Harness) *bundle {
	t.Helper()
	server := redistest.Start(t)
	client := newClient(t, server.Client())
	return &bundle{T: t, Harness: h, redis: server, client: client, gate: &gate{to: client}, log: new(record)}
}

func newClient(t testing.TB, rdb redis.UniversalClient) *events.Client {
	t.Helper()
	client, err := events.NewClient(rdb, events.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// start runs the source until the returned function is called, which returns once Run has.
func (b *bundle) start() (stop func() time.Duration) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	source := b.Source(b, slog.New(b.log))
	go func() { ended <- source.Run(ctx, b.gate) }()
	return sync.OnceValue(func() time.Duration {
		b.Helper()
		at := time.Now()
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				b.Errorf("Run returned %v", err)
			}
		case <-time.After(limit):
			b.Fatal("Run does not return")
		}
		return time.Since(at)
	})
}

// stored returns the ids on the stream in their order.
func (b *bundle) stored() []string {
	b.Helper()
	var ids []string
	for from := ""; ; {
		entries, next, err := b.client.Range(b.Context(), from, 1000)
		if err != nil {
			b.Fatal(err)
		}
		for _, e := range entries {
			ids = append(ids, e.Event.ID)
		}
		if from = next; from == "" || len(entries) < 1000 {
			return ids
		}
	}
}

func (b *bundle) length() int {
	b.Helper()
	stats, err := b.client.Stats(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return int(stats.Length)
}

// eventually waits for a state that no signal tells of.
func (b *bundle) eventually(what string, ok func() bool) {
	b.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(10 * time.Millisecond) { //nolint:forbidigo // the helper that polls, with a deadline
		if time.Now().After(deadline) {
			b.Fatalf("%s: not within %s; logged:\n%s", what, limit, b.log.text())
		}
	}
}

func ids(prefix string, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("%s%d", prefix, i)
	}
	return list
}

// gate is a publisher that can hold or refuse events before they reach Redis.
type gate struct {
	to events.Publisher

	mu     sync.Mutex
	held   chan struct{} // calls wait until it is closed
	refuse func(*events.Event) error
	calls  int
	tried  int // events, again and again
}

func (g *gate) Publish(ctx context.Context, list ...*events.Event) ([]events.Published, error) {
	g.mu.Lock()
	g.calls++
	g.tried += len(list)
	held, refuse := g.held, g.refuse
	g.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	outcomes := make([]events.Published, len(list))
	var passing []*events.Event
	var places []int
	var failed error
	for i, e := range list {
		if refuse != nil {
			outcomes[i].Err = refuse(e)
		}
		if outcomes[i].Err != nil {
			failed = fmt.Errorf("event %d: %w", i, outcomes[i].Err)
			continue
		}
		passing, places = append(passing, e), append(places, i)
	}
	if len(passing) > 0 {
		stored, err := g.to.Publish(ctx, passing...)
		if len(stored) != len(passing) {
			return nil, errors.Join(failed, err)
		}
		for i, o := range stored {
			outcomes[places[i]] = o
		}
		failed = errors.Join(failed, err)
	}
	return outcomes, failed
}

func (g *gate) set(held chan struct{}, refuse func(*events.Event) error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held, g.refuse = held, refuse
}

func (g *gate) count() (calls, tried int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.calls, g.tried
}

// record keeps what was logged.
type record struct {
	mu    sync.Mutex
	lines []string
	warns int
}

func (r *record) Enabled(context.Context, slog.Level) bool { return true }
func (r *record) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *record) WithGroup(string) slog.Handler            { return r }

func (r *record) Handle(_ context.Context, line slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := line.Level.String() + " " + line.Message
	line.Attrs(func(a slog.Attr) bool {
		text += " " + a.String()
		return true
	})
	r.lines = append(r.lines, text)
	if line.Level >= slog.LevelWarn {
		r.warns++
	}
	return nil
}

func (r *record) warnings() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.warns
}

func (r *record) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines, "\n")
}
