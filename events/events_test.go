package events

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what should come at once; it is only spent when a test fails.
const patience = 20 * time.Second

func newClient(t testing.TB, rdb redis.UniversalClient, cfg Config) *Client {
	t.Helper()
	c, err := NewClient(rdb, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newEvent(t testing.TB, id string) *Event {
	t.Helper()
	e, err := New("test.happened", "/test", map[string]string{"id": id}, ID(id))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// publish stores an event for each id and returns the stream ids.
func publish(t testing.TB, c *Client, ids ...string) []string {
	t.Helper()
	batch := make([]*Event, len(ids))
	for i, id := range ids {
		batch[i] = newEvent(t, id)
	}
	outcomes, err := c.Publish(t.Context(), batch...)
	if err != nil {
		t.Fatal(err)
	}
	places := make([]string, len(outcomes))
	for i, o := range outcomes {
		places[i] = o.StreamID
	}
	return places
}

func names(prefix string, n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("%s%d", prefix, i)
	}
	return ids
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("still not so: %s", what)
		}
		<-look.C
	}
}

// running is a consumer in a goroutine.
type running struct {
	cancel context.CancelFunc
	done   chan error
}

func run(t testing.TB, c *Client, group string, h Handler, opts ConsumerOptions) *running {
	t.Helper()
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	consumer, err := c.NewConsumer(group, h, opts)
	if err != nil {
		t.Fatal(err)
	}
	return start(t, consumer)
}

func start(t testing.TB, consumer *Consumer) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- consumer.Run(ctx) }()
	t.Cleanup(func() { r.stop(t) })
	return r
}

// stop ends the consumer and returns how long that took.
func (r *running) stop(t testing.TB) time.Duration {
	t.Helper()
	began := time.Now()
	r.cancel()
	select {
	case err := <-r.done:
		r.done <- err
		if err != nil {
			t.Errorf("Run returned %v", err)
		}
	case <-time.After(patience):
		t.Error("Run doesn't return")
	}
	return time.Since(began)
}

// recorder is a handler that remembers what it acknowledged.
type recorder struct {
	mu   sync.Mutex
	seen map[string][]int // event id -> attempts
}

func (r *recorder) handle(_ context.Context, batch []Delivery) []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil {
		r.seen = make(map[string][]int)
	}
	for _, d := range batch {
		r.seen[d.Event.ID] = append(r.seen[d.Event.ID], d.Attempt)
	}
	return nil
}

func (r *recorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.seen)
}

func (r *recorder) attempts(id string) []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.seen[id])
}

func group(t testing.TB, c *Client, name string) GroupStats {
	t.Helper()
	s, err := c.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range s.Groups {
		if g.Name == name {
			return g
		}
	}
	return GroupStats{}
}

func settled(t testing.TB, c *Client, name string) func() bool {
	t.Helper()
	return func() bool {
		g := group(t, c, name)
		return g.Name != "" && g.Pending == 0 && g.Lag == 0
	}
}

// severable is a client of the same Redis whose connections can be cut for good, as those of a killed process are.
type severable struct {
	redis.UniversalClient
	mu    sync.Mutex
	conns []net.Conn
	cutAt bool
}

func newSeverable(t testing.TB, rdb redis.UniversalClient) *severable {
	t.Helper()
	original, ok := rdb.(*redis.Client)
	if !ok {
		t.Fatalf("a standalone Redis is needed, got %T", rdb)
	}
	s := new(severable)
	opt := *original.Options()
	dial := opt.Dialer
	opt.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.cutAt {
			return nil, errors.New("the connection was cut")
		}
		conn, err := dial(ctx, network, addr)
		if err == nil {
			s.conns = append(s.conns, conn)
		}
		return conn, err
	}
	client := redis.NewClient(&opt)
	s.UniversalClient = client
	t.Cleanup(func() { _ = client.Close() })
	return s
}

func (s *severable) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cutAt = true
	for _, c := range s.conns {
		_ = c.Close()
	}
}

func (s *severable) mend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cutAt = false
}

func TestConfigValidateReportsEveryFault(t *testing.T) {
	t.Parallel()
	if err := (Config{}).Validate(); err != nil {
		t.Errorf("the zero value is refused: %v", err)
	}
	err := Config{
		Prefix: "bellhop:events:", DedupeWindow: 1, Retention: -1, MaxEvents: -1, MaxEventBytes: 1,
		ClaimAfter: 1, Batch: -1, MaxDead: -1,
	}.Validate()
	for _, want := range []string{"prefix", "dedupe_window", "retention", "max_events", "max_event_bytes", "claim_after", "batch", "max_dead"} {
		if err == nil || !strings.Contains(err.Error(), want+":") {
			t.Errorf("no fault of %s in: %v", want, err)
		}
	}
}
