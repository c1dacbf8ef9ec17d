package redisconn

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

// Somebody turns eviction on while the process runs, and off again: each is told once.
func TestWatchTellsOfEviction(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	var log lockedBuffer
	w := NewWatch(server.Client(), Config{}, slog.New(slog.NewTextHandler(&log, nil)))
	w.every = 10 * time.Millisecond
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = w.Run(ctx) })
	set := func(policy string) {
		if err := server.Client().ConfigSet(ctx, "maxmemory-policy", policy).Err(); err != nil {
			t.Error(err)
		}
	}
	eventually := func(what string, ok func() bool) {
		for end := time.Now().Add(20 * time.Second); !ok(); <-time.After(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("still not so: %s", what)
			}
		}
	}
	set("allkeys-lru")
	eventually("told", func() bool { return w.Err() != nil && strings.Contains(w.Err().Error(), "allkeys-lru") })
	set("noeviction")
	eventually("told as mended", func() bool { return w.Err() == nil })
	stop()
	running.Wait()
	if text := log.String(); strings.Count(text, "not safe") != 1 || strings.Count(text, "safe for jobs again") != 1 {
		t.Errorf("it logged:\n%s", text)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
