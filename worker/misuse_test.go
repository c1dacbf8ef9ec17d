package worker_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/worker"
)

// What could only fail later, job by job, is refused with a sentence.
func TestMisuseIsRefused(t *testing.T) {
	t.Parallel()
	b := newPoolBench(t)
	made := func(routes ...job.Route) error {
		_, err := worker.New(b.rdb, b.config(), routes...)
		return err
	}
	ran := func(prepare func(*worker.Worker)) error {
		w, err := worker.New(b.rdb, b.config())
		if err != nil {
			t.Fatal(err)
		}
		prepare(w)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		return w.Run(ctx)
	}
	mux := asynq.NewServeMux()
	_, withoutRedis := worker.New(nil, b.config())
	gone := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1, DialerRetries: 1})
	t.Cleanup(func() { _ = gone.Close() })
	away, err := worker.New(gone, b.config())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"no Redis client":     {withoutRedis, "no Redis client was given"},
		"no function":         {made(echo.HandledBy(nil)), `route "echo" has no task or no handler`},
		"no asynq handler":    {made(worker.Asynq("a", nil)), `route "a" has no task or no handler`},
		"nil mounted":         {ran(func(w *worker.Worker) { w.Mount(nil) }), "a nil handler was mounted"},
		"two mounted":         {ran(func(w *worker.Worker) { w.Mount(mux); w.Mount(mux) }), "two handlers were mounted"},
		"run twice":           {ran(func(w *worker.Worker) { ctx, cancel := context.WithCancel(t.Context()); cancel(); _ = w.Run(ctx) }), "Run was called before"},
		"Redis out of reach":  {away.Run(t.Context()), "Redis can't be reached at the start: dial tcp 127.0.0.1:1"},
		"nothing wrong, once": {ran(func(w *worker.Worker) { w.Mount(mux) }), ""},
	} {
		if c.want == "" {
			if c.err != nil && !strings.Contains(c.err.Error(), context.Canceled.Error()) {
				t.Errorf("%s: %v", name, c.err)
			}
			continue
		}
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, c.err, c.want)
		}
	}
}

// lines is a log to be searched.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// A worker warns of its tasks' queues that nobody serves, and of having nothing to run.
func TestAWorkerTellsWhatIsOverlooked(t *testing.T) {
	t.Parallel()
	b := newPoolBench(t)
	images := job.Define[payload]("image:resize", job.Queue("images"))
	route := images.HandledBy(func(context.Context, payload) error { return nil })
	tells := func(queue, what string, routes ...job.Route) string {
		t.Helper()
		var log lines
		cfg := b.config()
		cfg.Queues = []worker.Queue{{Name: queue, Weight: 1}}
		cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		b.start(cfg, routes...)
		b.eventually(what, func() bool { return strings.Contains(log.String(), what) })
		return log.String()
	}
	const unserved = "no other bellhop worker serves a queue of this worker's tasks"
	tells("default", unserved+`: without one their jobs wait; add it to the queues of this worker or another" queue=images tasks=[image:resize]`, route)
	tells("images", "no handler: it puts off every job")
	plain := worker.Asynq("plain", asynq.HandlerFunc(func(context.Context, *asynq.Task) error { return nil })) // of no queue of its own
	for _, route := range []job.Route{route, plain} {
		if log := tells("other", "that this worker does not serve", route); strings.Contains(log, unserved) {
			t.Errorf("it warns without need:\n%s", log)
		}
	}
}
