package telemetry

import (
	"context"
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/bellhop-dev/bellhop/events"
)

// Publisher counts what becomes of the events that go through it to next. Several publishers of a process count together.
func (r *Registry) Publisher(next events.Publisher) events.Publisher {
	r.once.Do(func() {
		r.publisher = r.counter(published)
		for _, outcome := range []string{"published", "duplicate", "refused", "failed"} {
			r.publisher.WithLabelValues(outcome)
		}
	})
	return publisher{next, r.publisher}
}

type publisher struct {
	next   events.Publisher
	events *prometheus.CounterVec
}

// Publish is next's.
func (p publisher) Publish(ctx context.Context, list ...*events.Event) ([]events.Published, error) {
	outcomes, err := p.next.Publish(ctx, list...)
	for _, o := range outcomes {
		p.events.WithLabelValues(outcome(o)).Inc()
	}
	return outcomes, err
}

func outcome(p events.Published) string {
	switch {
	case p.Err == nil && p.Duplicate:
		return "duplicate"
	case p.Err == nil:
		return "published"
	case errors.Is(p.Err, events.ErrInvalid), errors.Is(p.Err, events.ErrTooLarge), errors.Is(p.Err, events.ErrFull):
		return "refused"
	}
	return "failed"
}
