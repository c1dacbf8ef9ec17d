package worker

import (
	"log/slog"
	"sync"
	"sync/atomic"
)

// outage tells once that Redis fails, and once that it is back, however many calls notice.
type outage struct {
	log *slog.Logger
	any atomic.Bool

	mu      sync.Mutex
	failing map[string]bool // by what was tried
}

func newOutage(log *slog.Logger) *outage {
	return &outage{log: log, failing: make(map[string]bool)}
}

func (o *outage) failed(what string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.failing) == 0 {
		o.log.Warn("Redis fails, trying on until it is back", "action", what, "err", err)
	}
	o.failing[what] = true
	o.any.Store(true)
}

func (o *outage) answered(what string) {
	if !o.any.Load() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.failing[what] {
		return
	}
	delete(o.failing, what)
	if len(o.failing) == 0 {
		o.any.Store(false)
		o.log.Info("Redis answers again")
	}
}
