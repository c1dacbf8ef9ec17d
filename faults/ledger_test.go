package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

// What the workers' children write down.
const (
	entryReady = "ready" // the worker takes jobs
	entryStart = "start" // a handler began
	entryEnd   = "end"   // a handler did its work
	entryCut   = "cut"   // a handler's context ended before

	ledgerStream = "ledger"
	gatePrefix   = "gate:"
)

// ledger is a Redis of its own, which no fault touches: a stream of all that the children did, in the time of one clock.
type ledger struct {
	t      testing.TB
	server *redistest.Server
	rdb    redis.UniversalClient

	mu   sync.Mutex
	last string
	all  []entry
}

type entry struct {
	at     time.Time
	kind   string
	id     string
	who    string
	beside int // handlers that ran in the process, this one included
}

func newLedger(t testing.TB) *ledger {
	t.Helper()
	server := redistest.Start(t)
	return &ledger{t: t, server: server, rdb: server.Client(), last: "0"}
}

// now is the ledger's clock.
func (l *ledger) now() time.Time {
	l.t.Helper()
	now, err := l.rdb.Time(l.t.Context()).Result()
	if err != nil {
		l.t.Fatal(err)
	}
	return now
}

// open lets the handlers at a gate go on.
func (l *ledger) open(gate string) {
	l.t.Helper()
	if err := l.rdb.Set(l.t.Context(), gatePrefix+gate, 1, 0).Err(); err != nil {
		l.t.Fatal(err)
	}
}

// entries are all that was written so far.
func (l *ledger) entries() []entry {
	l.t.Helper()
	return l.read(-1)
}

// read waits at most so long for one more entry, and returns all; a negative wait does not wait.
func (l *ledger) read(wait time.Duration) []entry {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.t.Context()), wait+10*time.Second)
	defer cancel()
	streams, err := l.rdb.XRead(ctx, &redis.XReadArgs{Streams: []string{ledgerStream, l.last}, Block: wait}).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		l.t.Fatalf("read the ledger: %v", err)
	}
	for _, s := range streams {
		for _, m := range s.Messages {
			l.last = m.ID
			ms, _ := strconv.ParseInt(strings.Split(m.ID, "-")[0], 10, 64)
			text := func(key string) string { s, _ := m.Values[key].(string); return s }
			beside, _ := strconv.Atoi(text("beside"))
			l.all = append(l.all, entry{at: time.UnixMilli(ms), kind: text("kind"), id: text("id"), who: text("who"), beside: beside})
		}
	}
	return slices.Clone(l.all)
}

// until waits for the ledger to hold something.
func (l *ledger) until(limit time.Duration, what string, ok func(history) bool) history {
	l.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		h := historyOf(l.entries())
		if ok(h) {
			return h
		}
		left := time.Until(deadline)
		if left <= 0 {
			l.t.Fatalf("not within %v: %s; %s", limit, what, h)
		}
		l.read(min(left, time.Second))
	}
}

// history is the ledger by job.
type history struct {
	entries []entry
	starts  map[string][]entry
	ends    map[string][]entry
	cuts    map[string][]entry
}

func historyOf(entries []entry) history {
	h := history{entries: entries, starts: make(map[string][]entry), ends: make(map[string][]entry), cuts: make(map[string][]entry)}
	for _, e := range entries {
		switch e.kind {
		case entryStart:
			h.starts[e.id] = append(h.starts[e.id], e)
		case entryEnd:
			h.ends[e.id] = append(h.ends[e.id], e)
		case entryCut:
			h.cuts[e.id] = append(h.cuts[e.id], e)
		}
	}
	return h
}

func (h history) String() string {
	return fmt.Sprintf("%d jobs were started, %d ended, %d runs in all", len(h.starts), len(h.ends), h.runs())
}

// runs is how many runs ended well.
func (h history) runs() int {
	n := 0
	for _, ends := range h.ends {
		n += len(ends)
	}
	return n
}

// begun is how many runs began.
func (h history) begun() int {
	n := 0
	for _, starts := range h.starts {
		n += len(starts)
	}
	return n
}

// ready tells whether the worker has announced itself.
func (h history) ready(who string) bool {
	return slices.ContainsFunc(h.entries, func(e entry) bool { return e.kind == entryReady && e.who == who })
}

// besides is the most handlers that ran in one process at once.
func (h history) besides() int {
	most := 0
	for _, e := range h.entries {
		most = max(most, e.beside)
	}
	return most
}
