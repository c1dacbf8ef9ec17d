package tasks

import (
	"encoding/json"
	"math/rand/v2"
	"time"

	"github.com/bellhop-dev/bellhop/job"
)

// WebhookDelivery is an event, or any JSON, that one endpoint shall get.
type WebhookDelivery struct {
	Endpoint string `json:"endpoint,omitempty" jsonschema:"name of an endpoint of handlers.webhooks.endpoints; or give url and signer"`
	URL      string `json:"url,omitempty" jsonschema:"http or https address, instead of an endpoint; its state is kept for the whole address"`
	Signer   string `json:"signer,omitempty" jsonschema:"name of an entry of handlers.webhooks.signers to sign a delivery to url with"`

	// Event and JSON are sent to the letter. In a handler they are json.RawMessage; null counts as left out.
	Event any `json:"event,omitempty" jsonschema:"the CloudEvent to send, as a JSON object: ${event} in a trigger"`
	JSON  any `json:"json,omitempty" jsonschema:"any other JSON to send, instead of an event"`

	Send string `json:"send,omitempty" jsonschema:"what of the event is sent: event for all of it, data for its data with the rest in ce- headers; the endpoint's own if left out"`
}

// UnmarshalJSON keeps event and json to the letter: decoded into an any, an integer above 2^53 would change.
func (d *WebhookDelivery) UnmarshalJSON(data []byte) error {
	type plain WebhookDelivery
	fields := struct {
		*plain
		Event json.RawMessage `json:"event"`
		JSON  json.RawMessage `json:"json"`
	}{plain: (*plain)(d)}
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	d.Event, d.JSON = given(fields.Event), given(fields.JSON)
	return nil
}

func given(raw json.RawMessage) any {
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	return raw
}

// WebhookDelivered is the result of a delivery that an endpoint has taken.
type WebhookDelivered struct {
	Endpoint   string `json:"endpoint"`
	Message    string `json:"message"` // webhook-id
	Status     int    `json:"status"`
	DurationMS int64  `json:"duration_ms"`
}

// webhookSchedule is how long a delivery waits after its first, second, ... failure: more than three days in all.
var webhookSchedule = []time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour,
	10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
}

// WebhookRetry waits 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h and 24 h, then 24 h each time, each up to a tenth longer.
func WebhookRetry(n int, _ error) time.Duration {
	wait := webhookSchedule[min(max(n, 1), len(webhookSchedule))-1]
	return wait + rand.N(wait/10)
}

// DeliverWebhook posts an event to an endpoint, signed as Standard Webhooks has it. A 2xx ends it; a 410 ends it and switches the
// endpoint off; anything else is tried again as WebhookRetry says, over three days. While an endpoint's circuit is open, or as many
// calls run as it can bear, its jobs are put off without spending an attempt.
var DeliverWebhook = job.Define[WebhookDelivery]("webhook:deliver",
	job.Timeout(2*time.Minute),
	job.MaxRetry(len(webhookSchedule)), job.Retry(WebhookRetry))
