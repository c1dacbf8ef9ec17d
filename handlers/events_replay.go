package handlers

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

// EventReplayer publishes copies of past events, and goes on where it was when it is asked again: *events.Client. Its progress is there to
// be read while it works.
type EventReplayer interface {
	Replay(ctx context.Context, r tasks.EventsReplay, progress func(tasks.EventsReplayed)) (tasks.EventsReplayed, error)
}

// Events runs events:replay.
type Events struct {
	replayer EventReplayer
	log      *slog.Logger
}

// NewEvents returns a handler over the stream. A nil logger is slog.Default().
func NewEvents(replayer EventReplayer, log *slog.Logger) *Events {
	if log == nil {
		log = slog.Default()
	}
	return &Events{replayer: replayer, log: log}
}

// tellEvery is how often a replay that takes long is logged.
const tellEvery = 30 * time.Second

// Replay publishes the copies. How far it came is the job's result, also when the attempt fails.
func (e *Events) Replay(ctx context.Context, r tasks.EventsReplay) error {
	j, ok := job.FromContext(ctx)
	if !ok || e.replayer == nil {
		return errors.New("events:replay needs a job, and a stream: give the worker's handlers Deps.Events")
	}
	if r.ID == "" {
		r.ID = j.ID
	}
	if err := r.Validate(); err != nil {
		return job.Discard(err.Error()) // it would be the same at each attempt
	}
	log := e.log.With("job", j.ID, "replay_id", r.ID)
	told := time.Now()
	progress, err := e.replayer.Replay(ctx, r, func(p tasks.EventsReplayed) {
		if time.Since(told) >= tellEvery {
			told = time.Now()
			log.Info("replaying events", "looked_at", p.LookedAt, "published", p.Published, "at", p.At, "until", p.Until)
		}
	})
	if setErr := j.SetResult(progress); setErr != nil {
		err = errors.Join(err, setErr)
	}
	switch {
	case errors.Is(err, events.ErrNotFound), errors.Is(err, events.ErrReplay): // the event does not come back, nor does the id get free
		return job.Discard(err.Error())
	case err != nil:
		return err
	}
	log.Info("replayed events", "looked_at", progress.LookedAt, "published", progress.Published,
		"duplicates", progress.Duplicates, "refused", progress.Refused, "trimmed", progress.Trimmed)
	return nil
}
