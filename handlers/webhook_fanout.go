package handlers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

// fannedOutFor is how long a finished delivery is kept if no event led to the fan-out: for so long a fan-out may run again and find it.
// Where an event did, that each endpoint got it is remembered as long as the event.
const fannedOutFor = time.Hour

// FanOut enqueues a delivery for each endpoint. Run again, it finds those that it has enqueued.
func (w *Webhooks) FanOut(ctx context.Context, p tasks.WebhookFanout) error {
	j, ok := job.FromContext(ctx)
	if !ok || w.jobs == nil {
		return errors.New("webhook:fanout: it runs in a worker alone, with Jobs set in what handlers.Routes is given")
	}
	names, err := w.chosen(p)
	if err != nil {
		return err
	}
	result := tasks.WebhookFannedOut{Deliveries: make([]tasks.WebhookJob, len(names))}
	requests := make([]job.Request, len(names))
	for i, name := range names {
		r, err := fannedOut(j, name, tasks.WebhookDelivery{Endpoint: name, Event: p.Event, JSON: p.JSON, Send: p.Send})
		if err != nil {
			return job.Discard(fmt.Sprintf("make the delivery to endpoint %s: %v", name, err))
		}
		requests[i] = r
		result.Deliveries[i] = tasks.WebhookJob{Endpoint: name, Job: r.ID(), Queue: j.Queue}
	}
	var faults []error
	for i, r := range w.jobs.EnqueueMany(ctx, requests) {
		if r.Err != nil && !errors.Is(r.Err, job.ErrDuplicate) {
			faults = append(faults, fmt.Errorf("enqueue the delivery to endpoint %s: %w", names[i], r.Err))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	return j.SetResult(result)
}

// chosen are the endpoints that the event goes to, by name.
func (w *Webhooks) chosen(p tasks.WebhookFanout) ([]string, error) {
	switch {
	case p.Event == nil && p.JSON == nil:
		return nil, job.Discard("nothing to send: give event (in a trigger ${event}) or json")
	case p.Event != nil && p.JSON != nil:
		return nil, job.Discard("event and json are both given: a delivery has one body, leave one of them out")
	case p.Send != "" && p.Send != sendEvent && p.Send != sendData:
		return nil, job.Discard(fmt.Sprintf("send: %.20q is neither event nor data", p.Send))
	case len(p.Endpoints) > 0:
		return w.named(p.Endpoints)
	case p.JSON != nil:
		return nil, job.Discard("endpoints: is empty: json has no type for their patterns, name the endpoints")
	}
	text, err := literal(p.Event)
	if err != nil {
		return nil, job.Discard("event: it can't be encoded")
	}
	event, err := events.Decode(text)
	if err != nil {
		return nil, job.Discard("event: " + err.Error())
	}
	var names []string
	for name, t := range w.targets {
		if !t.disabled && slices.ContainsFunc(t.patterns, func(p events.Pattern) bool { return p.Match(event.Type) }) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (w *Webhooks) named(all []string) ([]string, error) {
	names := make(map[string]bool, len(all))
	for _, name := range all {
		if w.targets[name] == nil {
			return nil, fmt.Errorf("endpoints: %.40q is not in handlers.webhooks.endpoints of this worker%s", name, known(w.targets))
		}
		names[name] = true
	}
	return slices.Sorted(maps.Keys(names)), nil
}

// fannedOut is a delivery whose id is made of the job's own and the endpoint's name.
func fannedOut(j *job.Job, endpoint string, p tasks.WebhookDelivery) (job.Request, error) {
	sum := sha256.Sum256([]byte(j.Queue + "\x00" + j.ID + "\x00" + endpoint))
	opts := []job.Option{job.ID("hook-" + hex.EncodeToString(sum[:16])), job.Queue(j.Queue)}
	for _, name := range []string{"traceparent", "tracestate"} {
		if value := j.Headers[name]; value != "" {
			opts = append(opts, job.Header(name, value))
		}
	}
	if j.Event != nil && !j.Event.StoredAt.IsZero() && j.Event.Trigger != "" {
		e := *j.Event
		e.Trigger += "/" + endpoint // one that no trigger can have
		return tasks.DeliverWebhook.Request(p, append(opts, job.ForEvent(e))...)
	}
	return tasks.DeliverWebhook.Request(p, append(opts, job.Retention(fannedOutFor))...)
}
