package handlers

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

// AMQP runs amqp:publish.
type AMQP struct {
	cfg  AMQPConfig
	pool *amqpPool
}

// NewAMQP returns a handler that keeps one connection open between jobs; it fails if cfg does not validate, or a file can't be read. It
// connects with the first job.
func NewAMQP(cfg AMQPConfig) (*AMQP, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("amqp:publish: %w", err)
	}
	cfg = cfg.WithDefaults()
	trust, err := cfg.tlsConfig()
	if err != nil {
		return nil, fmt.Errorf("amqp:publish: %w", err)
	}
	return &AMQP{cfg: cfg, pool: newAMQPPool(cfg, trust)}, nil
}

// Close ends the connection.
func (h *AMQP) Close() { h.pool.close() }

// Publish publishes one message and returns once the broker has confirmed it: it is then in every queue that it was routed to, and on
// their disks if it is persistent and they are durable. A message that is routed to no queue, or refused for what it is, is final; all
// else is tried again, with the same message id.
func (h *AMQP) Publish(ctx context.Context, p tasks.AMQPMessage) error {
	if h.cfg.URL == "" {
		return errors.New("handlers.amqp.url is not set in this worker: set it, or let another worker serve amqp:publish")
	}
	j, _ := job.FromContext(ctx)
	m, err := newAMQPMessage(j, p)
	if err != nil {
		return job.Discard(err.Error())
	}
	during, cancel := context.WithTimeout(ctx, h.cfg.Timeout)
	defer cancel()
	ch, err := h.pool.get(during)
	if err != nil {
		return err
	}
	reusable, err := ch.publish(during, p, m)
	h.pool.put(ch, reusable)
	if err != nil || j == nil {
		return err
	}
	return j.SetResult(tasks.AMQPPublished{MessageID: m.MessageId})
}

// publish returns whether the channel can carry another message. One whose message nobody has told of yet can't.
func (ch *amqpChannel) publish(ctx context.Context, p tasks.AMQPMessage, m amqp.Publishing) (reusable bool, err error) {
	if err := taken(ch.blocked); err != nil {
		return true, err
	}
	// A broker that reads nothing more would hold the call for as long: the time is over at the end of ctx.
	written := make(chan error, 1)
	var confirm *amqp.DeferredConfirmation
	go func() {
		var err error
		confirm, err = ch.PublishWithDeferredConfirm(p.Exchange, p.RoutingKey, true, false, m)
		written <- err
	}()
	select {
	case err := <-written:
		if err != nil {
			return false, fmt.Errorf("publish: %w", err)
		}
	case <-ctx.Done():
		return false, ch.unconfirmed(ctx)
	}
	acked, err := confirm.WaitContext(ctx)
	if err != nil {
		return false, ch.unconfirmed(ctx)
	}
	select {
	case r, open := <-ch.returned: // comes before the confirmation
		if open {
			return true, job.Discard(fmt.Sprintf("%s: %s takes it to no queue: declare the queue, or bind it", r.ReplyText, place(p)))
		}
	default:
	}
	if acked {
		return true, nil
	}
	select {
	case reason := <-ch.closed:
		return false, ended(p, reason)
	default:
		return true, fmt.Errorf("the broker refused the message for now: a queue behind %s is full, or not to be had", place(p))
	}
}

func (ch *amqpChannel) unconfirmed(ctx context.Context) error {
	if err := taken(ch.blocked); err != nil {
		return fmt.Errorf("%w: %w", err, ctx.Err())
	}
	return fmt.Errorf("the broker did not confirm the message in time: %w", ctx.Err())
}

// ended tells what the end of a channel means for the message on it.
func ended(p tasks.AMQPMessage, reason *amqp.Error) error {
	if reason == nil {
		return fmt.Errorf("publish: %w", amqp.ErrClosed)
	}
	switch reason.Code {
	case amqp.NotFound:
		return job.Discard(reason.Reason + ": declare the exchange, or mend the payload's exchange")
	case amqp.AccessRefused:
		return job.Discard(reason.Reason + ": grant the user of handlers.amqp to write to " + place(p))
	case amqp.PreconditionFailed:
		return job.Discard(reason.Reason)
	}
	return fmt.Errorf("publish: %w", reason)
}

func place(p tasks.AMQPMessage) string {
	if p.Exchange == "" {
		return fmt.Sprintf("the default exchange with routing key %q", p.RoutingKey)
	}
	return fmt.Sprintf("exchange %q with routing key %q", p.Exchange, p.RoutingKey)
}

func newAMQPMessage(j *job.Job, p tasks.AMQPMessage) (amqp.Publishing, error) {
	m := amqp.Publishing{
		ContentType: p.ContentType, CorrelationId: p.CorrelationID, ReplyTo: p.ReplyTo, MessageId: p.MessageID, Type: p.Type, AppId: p.AppID,
		Priority: p.Priority, DeliveryMode: amqp.Persistent,
	}
	if p.Transient {
		m.DeliveryMode = amqp.Transient
	}
	if m.MessageId == "" && j != nil {
		m.MessageId = j.ID
	}
	var faults []error
	if p.Exchange == "" && p.RoutingKey == "" {
		faults = append(faults, errors.New("exchange: is missing, and routing_key too; one of them says where to"))
	}
	for _, s := range []struct{ name, value string }{
		{"exchange", p.Exchange},
		{"routing_key", p.RoutingKey},
		{"content_type", p.ContentType},
		{"message_id", m.MessageId},
		{"correlation_id", p.CorrelationID},
		{"reply_to", p.ReplyTo},
		{"type", p.Type},
		{"app_id", p.AppID},
	} {
		if len(s.value) > 255 {
			faults = append(faults, fmt.Errorf("%s: has %d bytes, AMQP allows 255", s.name, len(s.value)))
		}
	}
	if p.Expiration != "" {
		d, err := time.ParseDuration(p.Expiration)
		if err != nil || d < 0 || d > math.MaxUint32*time.Millisecond {
			faults = append(faults, fmt.Errorf("expiration: %.40q is no duration such as 10m", p.Expiration))
		}
		m.Expiration = strconv.FormatInt(d.Milliseconds(), 10)
	}
	var err error
	if m.Headers, err = amqpHeaders(p.Headers); err != nil {
		faults = append(faults, err)
	}
	if m.Body, m.ContentType, err = amqpBody(p); err != nil {
		faults = append(faults, err)
	}
	return m, errors.Join(faults...)
}

func amqpBody(p tasks.AMQPMessage) (body []byte, contentType string, err error) {
	switch {
	case p.JSON != nil && p.Body != "":
		return nil, "", errors.New("json: body is there too; keep one of them")
	case p.JSON != nil:
		if body, err = json.Marshal(p.JSON); err != nil {
			return nil, "", fmt.Errorf("json: %w", err)
		}
		if p.ContentType == "" {
			return body, "application/json", nil
		}
		return body, p.ContentType, nil
	case p.Base64:
		if body, err = base64.StdEncoding.DecodeString(p.Body); err != nil {
			return nil, "", fmt.Errorf("body: is not base64: %w", err)
		}
		return body, p.ContentType, nil
	}
	return []byte(p.Body), p.ContentType, nil
}

func amqpHeaders(headers map[string]any) (amqp.Table, error) {
	table := make(amqp.Table, len(headers))
	var faults []error
	for name, value := range headers {
		if len(name) > 255 {
			faults = append(faults, fmt.Errorf("headers: %.40q... has %d bytes, AMQP allows 255", name, len(name)))
			continue
		}
		switch v := value.(type) {
		case string, bool:
			table[name] = v
		case float64: // as JSON decodes every number
			if v == math.Trunc(v) && math.Abs(v) <= 1<<53 {
				table[name] = int64(v)
			} else {
				table[name] = v
			}
		default:
			faults = append(faults, fmt.Errorf("headers.%.80s: is neither text, boolean nor number", name))
		}
	}
	return table, errors.Join(faults...)
}
