package triggers

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/job"
)

// Feed brings the stream's events to a runner, and so jobs into the queues. It fits worker.Feeder.
type Feed struct {
	*Runner
	group    string
	stream   *events.Client
	consumer *events.Consumer
}

// NewFeed returns a feed of the set's rules. A nil logger is slog.Default().
func NewFeed(set *Set, stream *events.Client, jobs *job.Client, log *slog.Logger) (*Feed, error) {
	runner := NewRunner(set, Deps{Jobs: jobs, Dead: stream, Fired: jobs, Logger: log})
	consumer, err := stream.NewConsumer(set.cfg.Group, runner.Handle, events.ConsumerOptions{Logger: runner.Logger, OnTrim: runner.OnTrim})
	if err != nil {
		return nil, fmt.Errorf("feed triggers: %w", err)
	}
	return &Feed{Runner: runner, group: set.cfg.Group, stream: stream, consumer: consumer}, nil
}

// Run feeds until ctx ends.
func (f *Feed) Run(ctx context.Context) error { return f.consumer.Run(ctx) }

// Drained tells whether every event on the stream has become its jobs.
func (f *Feed) Drained(ctx context.Context) (bool, error) {
	stats, err := f.stream.Stats(ctx)
	if err != nil {
		return false, err
	}
	for _, g := range stats.Groups {
		if g.Name == f.group {
			return g.Lag == 0 && g.Pending == 0, nil
		}
	}
	return stats.Length == 0, nil
}
