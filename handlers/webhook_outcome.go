package handlers

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/bellhop-dev/bellhop/endpoints"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

// report is what the fleet is told of the call.
func (a *answer) report(d *delivery) endpoints.Report {
	r := endpoints.Report{
		Outcome: a.outcome(),
		Attempt: &endpoints.Attempt{
			Job: d.job.ID, Queue: d.job.Queue, Message: d.message.id, Number: d.job.Attempt, At: a.at.UTC().Truncate(time.Millisecond),
			DurationMS: a.took.Milliseconds(), Status: a.status, Error: a.problem, Answer: a.body,
		},
	}
	switch a.status {
	case http.StatusGone:
		r.Reason = fmt.Sprintf("it answered 410 Gone to job %s", d.job.ID)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		r.Pause = a.after // these speak for the endpoint, not for this one message
	}
	return r
}

func (a *answer) outcome() endpoints.Outcome {
	switch {
	case a.status/100 == 2:
		return endpoints.Delivered
	case a.status == http.StatusGone:
		return endpoints.Gone
	case a.stopped != nil, a.refused:
		return endpoints.Abandoned
	}
	return endpoints.Failed
}

// tell says how the call ended.
func (a *answer) tell() string {
	if a.status == 0 {
		return a.problem
	}
	text := fmt.Sprintf("answered %d", a.status)
	if name := http.StatusText(a.status); name != "" {
		text += " " + name
	}
	if a.status/100 == 3 {
		text += ", and redirects are not followed"
	}
	if a.body != "" {
		text += ": " + a.body
	}
	return text
}

// verdict is how the job goes on. Whatever is no 2xx may be a fault that its owner mends within days, a 404 as well as a 500.
func (a *answer) verdict(d *delivery) error {
	text := d.told + ": " + a.tell()
	switch {
	case a.stopped != nil:
		return fmt.Errorf("%s: %w", text, a.stopped)
	case a.outcome() == endpoints.Delivered:
		return d.job.SetResult(tasks.WebhookDelivered{
			Endpoint: d.target.id, Message: d.message.id, Status: a.status, DurationMS: a.took.Milliseconds(),
		})
	case a.outcome() == endpoints.Gone:
		return job.Discard(text + ": the endpoint is switched off: enable it if it should get events again")
	case a.refused:
		return job.Discard(text)
	case a.after > 0:
		// Never sooner than without the header, or a server could make a job spend its attempts at once.
		return job.RetryIn(max(a.after, tasks.WebhookRetry(d.job.Attempt, nil)), errors.New(text))
	}
	return errors.New(text)
}
