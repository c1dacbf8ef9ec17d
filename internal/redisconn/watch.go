package redisconn

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// watchEvery is how often a running process asks whether Redis may still be trusted.
const watchEvery = 30 * time.Second

// Watch goes on asking what Check asks at the start: somebody may turn eviction on while jobs are in Redis.
type Watch struct {
	rdb   redis.UniversalClient
	cfg   Config
	log   *slog.Logger
	every time.Duration
	fault atomic.Pointer[error]
}

// NewWatch returns a watch over a client that Check has accepted. A nil log is slog.Default().
func NewWatch(rdb redis.UniversalClient, cfg Config, log *slog.Logger) *Watch {
	if log == nil {
		log = slog.Default()
	}
	return &Watch{rdb: rdb, cfg: cfg, log: log, every: watchEvery}
}

// Err is why jobs are not safe in this Redis any more; nil if they are, as far as the last look tells.
func (w *Watch) Err() error {
	if fault := w.fault.Load(); fault != nil {
		return *fault
	}
	return nil
}

// Run looks every half minute until ctx ends, and logs when the answer changes. A Redis that does not answer is told by others.
func (w *Watch) Run(ctx context.Context) error {
	every := time.NewTicker(w.every)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
			w.look(ctx)
		}
	}
}

func (w *Watch) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, ioTimeout)
	defer cancel()
	nodes, err := askMasters(ctx, w.rdb)
	if err != nil {
		return
	}
	before, fault := w.Err(), evictionFault(nodes, w.cfg)
	w.fault.Store(&fault)
	switch {
	case fault != nil && before == nil:
		w.log.ErrorContext(ctx, "Redis is not safe for jobs any more", "err", fault)
	case fault == nil && before != nil:
		w.log.InfoContext(ctx, "Redis is safe for jobs again")
	}
}

func evictionFault(nodes []node, cfg Config) error {
	for _, n := range nodes {
		if evictionRisk(n.eviction) == 2 && !cfg.AllowEviction {
			return fmt.Errorf("redis at %s may drop jobs when its memory is full: its maxmemory-policy is %s; "+
				"run CONFIG SET maxmemory-policy noeviction and CONFIG REWRITE on it (or set allow_eviction to accept the loss)", n.addr, n.eviction)
		}
	}
	return nil
}
