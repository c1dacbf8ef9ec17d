package tasks

import (
	"time"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/job"
)

// EventsReplay says which past events are to be published again, and for whom. Without an id, the replay has the job's.
type EventsReplay = events.ReplayRequest

// EventsReplayed is the result of an events:replay job.
type EventsReplayed = events.ReplayProgress

// ReplayEvents publishes copies of past events. An attempt may take a day, by its rate; one that fails or is cut goes on where it was.
// The result is kept for a day, as EventsReplayed.
var ReplayEvents = job.Define[EventsReplay]("events:replay",
	job.Timeout(24*time.Hour),
	job.MaxRetry(50), job.Retry(job.Exponential(time.Second, 5*time.Minute)),
	job.Retention(24*time.Hour))
