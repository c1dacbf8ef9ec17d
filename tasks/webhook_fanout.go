package tasks

import (
	"encoding/json"
	"time"

	"github.com/bellhop-dev/bellhop/job"
)

// WebhookFanout is an event, or any JSON, for many endpoints.
type WebhookFanout struct {
	Endpoints []string `json:"endpoints,omitempty" jsonschema:"names of endpoints of handlers.webhooks.endpoints; if left out, each whose events patterns match the event's type"`

	// Event and JSON are as those of WebhookDelivery.
	Event any `json:"event,omitempty" jsonschema:"the CloudEvent to send, as a JSON object: ${event} in a trigger"`
	JSON  any `json:"json,omitempty" jsonschema:"any other JSON to send, instead of an event; then endpoints must be named"`

	Send string `json:"send,omitempty" jsonschema:"what of the event is sent: event or data; each endpoint's own if left out"`
}

// UnmarshalJSON keeps event and json to the letter.
func (f *WebhookFanout) UnmarshalJSON(data []byte) error {
	type plain WebhookFanout
	fields := struct {
		*plain
		Event json.RawMessage `json:"event"`
		JSON  json.RawMessage `json:"json"`
	}{plain: (*plain)(f)}
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	f.Event, f.JSON = given(fields.Event), given(fields.JSON)
	return nil
}

// WebhookFannedOut is the result of a fan-out: which job delivers to which endpoint.
type WebhookFannedOut struct {
	Deliveries []WebhookJob `json:"deliveries"`
}

// WebhookJob is a webhook:deliver job.
type WebhookJob struct {
	Endpoint string `json:"endpoint"`
	Job      string `json:"job"`
	Queue    string `json:"queue"`
}

// FanOutWebhook enqueues a webhook:deliver for each endpoint, in its own queue, with ids made of its own: if it runs again it makes no
// second one.
var FanOutWebhook = job.Define[WebhookFanout]("webhook:fanout",
	job.Timeout(time.Minute),
	job.MaxRetry(16), job.Retry(job.Exponential(time.Second, time.Hour)),
	job.Retention(time.Hour))
