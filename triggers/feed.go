package triggers

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/internal/lifecycle"
	"github.com/bellhop-dev/bellhop/job"
)

// Feed brings the stream's events to a runner, and so jobs into the queues. It fits worker.Feeder.
type Feed struct {
	*Runner
	rules    *Rules // nil: the set is fixed
	group    string
	stream   *events.Client
	consumer *events.Consumer
}

// NewFeed returns a feed of the set's rules, which stay as they are unless Swap replaces them. A nil logger is slog.Default().
func NewFeed(set *Set, stream *events.Client, jobs *job.Client, log *slog.Logger) (*Feed, error) {
	runner := NewRunner(set, Deps{Jobs: jobs, Dead: stream, Fired: jobs, Logger: log})
	consumer, err := stream.NewConsumer(set.cfg.Group, runner.Handle, events.ConsumerOptions{Logger: runner.Logger, OnTrim: runner.OnTrim})
	if err != nil {
		return nil, fmt.Errorf("feed triggers: %w", err)
	}
	return &Feed{Runner: runner, group: set.cfg.Group, stream: stream, consumer: consumer}, nil
}

// NewLiveFeed returns a feed that runs what the rules are at any time; its Run follows them, too. A batch of events meets one state
// of the rules. A nil logger is slog.Default().
func NewLiveFeed(rules *Rules, stream *events.Client, jobs *job.Client, log *slog.Logger) (*Feed, error) {
	f, err := NewFeed(rules.Set(), stream, jobs, log)
	if err != nil {
		return nil, err
	}
	f.rules = rules
	rules.drive(f.Runner)
	return f, nil
}

// Run feeds until ctx ends.
func (f *Feed) Run(ctx context.Context) error {
	if f.rules == nil {
		return f.consumer.Run(ctx)
	}
	parts := new(lifecycle.Group)
	parts.Add("follow the rules", f.rules.Run)
	parts.Add("take events", f.take)
	return parts.Run(ctx)
}

// take consumes while the rules have a say in events: openGate tells when.
func (f *Feed) take(ctx context.Context) error {
	for ctx.Err() == nil {
		if !f.rules.feeds() {
			select {
			case <-ctx.Done():
			case <-f.rules.gate:
			}
			continue
		}
		taking, stop := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			defer stop()
			for f.rules.feeds() {
				select {
				case <-taking.Done():
					return
				case <-f.rules.gate:
				}
			}
		}()
		err := f.consumer.Run(taking)
		stop()
		<-ended
		if err != nil {
			return err
		}
	}
	return nil
}

// Drained tells whether every event on the stream has become its jobs. A feed that takes no events has nothing to do.
func (f *Feed) Drained(ctx context.Context) (bool, error) {
	if f.rules != nil && !f.rules.feeds() {
		return true, nil
	}
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
