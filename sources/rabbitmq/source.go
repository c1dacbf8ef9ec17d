package rabbitmq

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/sources"
)

// A source waits this long before it tries again: at first, and at most. Half of it is chance.
const (
	firstWait = 100 * time.Millisecond
	mostWait  = 30 * time.Second
)

// Source takes events from one queue of RabbitMQ.
type Source struct {
	cfg     Config
	mapping compiledMapping
	log     *slog.Logger
}

var _ sources.Source = (*Source)(nil)

// New returns a source that does nothing until Run; it fails if cfg does not validate. A nil logger is slog.Default().
func New(cfg Config, logger *slog.Logger) (*Source, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("rabbitmq source %s: %w", cfg.WithDefaults().Name, err)
	}
	cfg = cfg.WithDefaults()
	mapping, err := cfg.Mapping.compile()
	if err != nil {
		return nil, err
	}
	if logger == nil {
		logger = slog.Default()
	}
	return &Source{cfg: cfg, mapping: mapping, log: logger.With("source", cfg.Name)}, nil
}

// Name is the configured name, or the queue's.
func (s *Source) Name() string { return s.cfg.Name }

// Run takes messages and publishes their events until ctx ends, then returns nil: what is in hand by then goes back to the queue.
// An outage of the broker, or a queue that isn't there, is logged once and waited out.
func (s *Source) Run(ctx context.Context, to events.Publisher) error {
	broker := outage{log: s.log, begins: "rabbitmq is not to be had", ends: "rabbitmq is back"}
	for failed := 0; ; failed++ {
		session, begun := newSession(s, to), time.Now()
		err := session.run(ctx, broker.end)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // to end is what it was asked for
		}
		// One that has come to nothing is no good sign, and each costs the messages in hand one of their deliveries.
		if session.acknowledged || time.Since(begun) > mostWait {
			failed = 0
		}
		broker.begin(err)
		if !sleep(ctx, wait(failed)) {
			return nil
		}
	}
}

// wait grows with the failures so far, and differs between processes so that they don't come back all at once.
func wait(failed int) time.Duration {
	most := min(firstWait<<min(failed, 20), mostWait)
	return most/2 + rand.N(most/2)
}

// sleep reports whether ctx lasted.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// outage logs the begin and the end of one, and in between only when its reason becomes another.
type outage struct {
	log          *slog.Logger
	begins, ends string
	since        time.Time
	reason       string
}

func (o *outage) begin(err error) {
	reason := reasonOf(err)
	if o.since.IsZero() {
		o.since = time.Now()
	} else if o.reason == reason {
		return
	}
	o.reason = reason
	o.log.Warn(o.begins, "err", err) //nolint:sloglint // one of the two messages above
}

func (o *outage) end() {
	if o.since.IsZero() {
		return
	}
	o.log.Info(o.ends, "after", time.Since(o.since).Round(time.Millisecond)) //nolint:sloglint // likewise
	o.since, o.reason = time.Time{}, ""
}
