package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// ownHeader begins the headers that are added to a dead letter.
	ownHeader = "x-bellhop-"
	maxReason = 1000
	// confirmTime is how long a broker may take to confirm a dead letter; when it blocks publishers, it never does.
	confirmTime = 10 * time.Second
	// blockedTime is enough once it has said so.
	blockedTime = time.Second
)

func (d DeadLetter) name() string {
	if d.Exchange != "" {
		return "exchange " + d.Exchange
	}
	return "queue " + d.Queue
}

// deadLetters publishes what is set aside, over a connection of its own: a broker short of memory stops reading from connections
// that publish, and acknowledgements must go on.
type deadLetters struct {
	cfg Config
	log *slog.Logger

	conn     *amqp.Connection
	ch       *amqp.Channel
	returned chan amqp.Return
	blocked  atomic.Pointer[string] // why the broker takes nothing
}

// send returns nil once the broker has the message.
func (d *deadLetters) send(ctx context.Context, m *message) error {
	ctx, cancel := context.WithTimeout(ctx, confirmTime)
	defer cancel()
	err := d.publish(ctx, m)
	if err != nil {
		d.close() // nobody knows what is still under way on it
		return &fault{about: "set aside", err: fmt.Errorf("set aside a message to %s: %w", d.cfg.DeadLetter.name(), err)}
	}
	return nil
}

func (d *deadLetters) publish(ctx context.Context, m *message) error {
	if err := d.open(ctx); err != nil {
		return err
	}
	letter := d.cfg.DeadLetter
	key := letter.RoutingKey
	if key == "" {
		key = m.RoutingKey
	}
	// A broker that reads nothing more would hold a long letter, and whoever writes it, for as long: the end of ctx ends that too.
	conn := d.conn
	stop := context.AfterFunc(ctx, func() { _ = conn.CloseDeadline(time.Now()) })
	defer stop()
	confirm, err := d.ch.PublishWithDeferredConfirm(letter.Exchange, key, true, false, d.letter(m))
	acked := false
	if err == nil {
		acked, err = d.wait(ctx, confirm)
	}
	select {
	case r, open := <-d.returned: // comes before the confirmation
		if !open {
			break
		}
		return fmt.Errorf("it can't be routed (%s); make the queue, or bind it to the exchange", r.ReplyText)
	default:
	}
	reason := d.blocked.Load()
	switch {
	case err != nil && reason != nil:
		return fmt.Errorf("the broker takes no messages: %s; free memory or disk there", *reason)
	case err != nil:
		return fmt.Errorf("it is not confirmed: %w", err)
	case !acked:
		return errors.New("the broker refused it, or the connection ended")
	}
	return nil
}

// wait doesn't wait long for a broker that has said that it takes nothing: other messages do meanwhile.
func (d *deadLetters) wait(ctx context.Context, confirm *amqp.DeferredConfirmation) (acked bool, err error) {
	short, cancel := context.WithTimeout(ctx, blockedTime)
	defer cancel()
	if acked, err = confirm.WaitContext(short); err == nil || d.blocked.Load() != nil {
		return acked, err
	}
	return confirm.WaitContext(ctx)
}

func (d *deadLetters) open(ctx context.Context) error {
	if d.ch != nil && !d.ch.IsClosed() {
		return nil
	}
	d.close()
	conn, ch, release, err := d.cfg.connect(ctx, "bellhop source "+d.cfg.Name+" dead letters")
	if err != nil {
		return err
	}
	d.conn, d.ch = conn, ch
	d.returned = ch.NotifyReturn(make(chan amqp.Return, 1))
	go d.watch(conn.NotifyBlocked(make(chan amqp.Blocking, 1)))
	if err := ch.Confirm(false); err != nil {
		release()
		return fmt.Errorf("ask for confirmations: %w", err)
	}
	if !release() {
		return ctx.Err()
	}
	return nil
}

// watch ends with the connection.
func (d *deadLetters) watch(changes <-chan amqp.Blocking) {
	for b := range changes {
		if b.Active {
			d.blocked.Store(&b.Reason)
		} else {
			d.blocked.Store(nil)
		}
	}
	d.blocked.Store(nil)
}

func (d *deadLetters) close() {
	if d.conn != nil {
		closeSoon(d.conn)
	}
	d.conn, d.ch = nil, nil
}

// letter is the message with the reason. What would have the broker refuse it, let it expire, or send it to other queues as
// well (CC, which would come round as the same message again) is kept under another name.
func (d *deadLetters) letter(m *message) amqp.Publishing {
	headers := maps.Clone(m.Headers)
	if headers == nil {
		headers = amqp.Table{}
	}
	for _, name := range []string{"CC", "BCC"} {
		if v, there := headers[name]; there {
			delete(headers, name)
			headers[ownHeader+strings.ToLower(name)] = v
		}
	}
	for name, value := range map[string]string{
		"reason": cut(m.reason.Error(), maxReason), "source": d.cfg.Name, "queue": d.cfg.Queue,
		"exchange": m.Exchange, "routing-key": m.RoutingKey, "user-id": m.UserId, "expiration": m.Expiration,
	} {
		if value != "" {
			headers[ownHeader+name] = value
		}
	}
	headers[ownHeader+"at"] = time.Now().UTC().Format(time.RFC3339)
	return amqp.Publishing{
		Headers: headers, ContentType: m.ContentType, ContentEncoding: m.ContentEncoding, DeliveryMode: amqp.Persistent,
		Priority: m.Priority, CorrelationId: m.CorrelationId, ReplyTo: m.ReplyTo, MessageId: m.MessageId, Timestamp: m.Timestamp,
		Type: m.Type, AppId: m.AppId, Body: m.Body,
	}
}

// cut shortens s to at most n bytes of valid UTF-8.
func cut(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}
