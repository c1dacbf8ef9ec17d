package tasks

import (
	"encoding/json"
	"time"

	"github.com/bellhop-dev/bellhop/job"
)

// AMQPMessage is a message for RabbitMQ, or another broker of AMQP 0-9-1.
type AMQPMessage struct {
	Exchange   string `json:"exchange,omitempty" jsonschema:"exchange to publish to; left out, the routing key names a queue"`
	RoutingKey string `json:"routing_key,omitempty" jsonschema:"routing key"`

	// JSON is sent as encoding/json writes it; null counts as left out. In a handler it is a json.RawMessage.
	JSON any `json:"json,omitempty" jsonschema:"body, sent as JSON; not together with body"`

	Body   string `json:"body,omitempty" jsonschema:"body, sent as it is; not together with json"`
	Base64 bool   `json:"base64,omitempty" jsonschema:"body is base64 of what to send"`

	ContentType string         `json:"content_type,omitempty" jsonschema:"content type; application/json where json is set"`
	Headers     map[string]any `json:"headers,omitempty" jsonschema:"headers: texts, booleans and numbers"`

	MessageID     string `json:"message_id,omitempty" jsonschema:"message id; the job's id if left out, the same in all attempts"`
	CorrelationID string `json:"correlation_id,omitempty" jsonschema:"correlation id"`
	ReplyTo       string `json:"reply_to,omitempty" jsonschema:"queue for answers"`
	Type          string `json:"type,omitempty" jsonschema:"type of the message"`
	AppID         string `json:"app_id,omitempty" jsonschema:"what sends it"`
	Priority      uint8  `json:"priority,omitempty" jsonschema:"priority, in queues that have them"`
	Expiration    string `json:"expiration,omitempty" jsonschema:"how long it may wait in a queue, such as 10m"`
	Transient     bool   `json:"transient,omitempty" jsonschema:"need not outlive a restart of the broker"`
}

// UnmarshalJSON keeps the value of json to the letter: decoded into an any, an integer above 2^53 would change.
func (m *AMQPMessage) UnmarshalJSON(data []byte) error {
	type plain AMQPMessage
	fields := struct {
		*plain
		JSON json.RawMessage `json:"json"`
	}{plain: (*plain)(m)}
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	m.JSON = nil
	if len(fields.JSON) > 0 && string(fields.JSON) != "null" {
		m.JSON = fields.JSON
	}
	return nil
}

// AMQPPublished is the result of a message that the broker has.
type AMQPPublished struct {
	MessageID string `json:"message_id"`
}

// PublishAMQP publishes to the broker of handlers.amqp. The job is done once the broker has confirmed the message; it may arrive twice when
// that word is lost, with the same message id. A message that no queue takes is an error for good. Faults of the broker and of the network
// are tried again 16 times, over about five hours.
var PublishAMQP = job.Define[AMQPMessage]("amqp:publish",
	job.Timeout(time.Minute),
	job.MaxRetry(16), job.Retry(job.Exponential(time.Second, time.Hour)),
	job.Retention(time.Hour))
