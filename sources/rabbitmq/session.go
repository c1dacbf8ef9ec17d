package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/bellhop-dev/bellhop/events"
)

// session is one connection, from dialling to its end.
type session struct {
	*Source
	to           events.Publisher
	acknowledged bool // something was

	ch        *amqp.Channel
	arriving  *inbox
	closed    chan *amqp.Error
	cancelled chan string

	hand   []*message // delivered and not acknowledged, in the order of their tags
	dead   *deadLetters
	taking outage

	failures int       // calls of the publisher in a row in which nothing went
	resume   time.Time // when the next one may be
}

// message is a delivery in hand.
type message struct {
	amqp.Delivery

	event   *events.Event
	reason  error // why it can't be an event: it is to be set aside
	derived bool  // the event's id comes from the content
	tries   int
	due     time.Time
	done    bool // to be acknowledged
}

func newSession(s *Source, to events.Publisher) *session {
	return &session{
		Source: s, to: to,
		dead:   &deadLetters{cfg: s.cfg, log: s.log},
		taking: outage{log: s.log, begins: "events are not taken: messages wait", ends: "events are taken again"},
	}
}

// run takes messages until ctx ends or the connection does, and tells why. It calls ready once messages can arrive.
func (s *session) run(ctx context.Context, ready func()) error {
	conn, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer closeSoon(conn)
	defer s.dead.close()
	ready()

	for {
		if err := s.receive(ctx); err != nil {
			return err
		}
		for batch := s.next(); len(batch) > 0; batch = s.next() {
			s.publish(ctx, batch)
			if err := s.acknowledge(); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
}

func (s *session) open(ctx context.Context) (*amqp.Connection, error) {
	ctx, cancel := context.WithTimeout(ctx, setupTime)
	defer cancel()
	conn, ch, release, err := s.cfg.connect(ctx, "bellhop source "+s.cfg.Name)
	if err != nil {
		return nil, err
	}
	s.ch = ch
	if err = s.consume(); err == nil && !release() {
		err = &fault{about: theConnection, err: ctx.Err()}
	}
	if err != nil {
		release()
		closeSoon(conn)
		return nil, err
	}
	return conn, nil
}

func (s *session) consume() error {
	s.closed = s.ch.NotifyClose(make(chan *amqp.Error, 1))
	s.cancelled = s.ch.NotifyCancel(make(chan string, 1))
	if err := s.cfg.prepare(s.ch); err != nil {
		return err
	}
	if err := s.ch.Qos(s.cfg.Prefetch, 0, false); err != nil {
		return &fault{about: theConnection, err: fmt.Errorf("set the prefetch: %w", err)}
	}
	deliveries, err := s.ch.Consume(s.cfg.Queue, "", false, false, false, false, nil)
	if err != nil {
		return &fault{about: theConnection, err: fmt.Errorf("consume from queue %s: %w", s.cfg.Queue, err)}
	}
	s.arriving = newInbox()
	go s.arriving.fill(deliveries)
	return nil
}

// receive waits for a message, or until one in hand is due again, and takes all that have arrived.
func (s *session) receive(ctx context.Context) error {
	var due <-chan time.Time
	if at, waiting := s.nextDue(); waiting {
		timer := time.NewTimer(time.Until(at))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-due:
		return nil
	case <-s.arriving.signal:
		list, open := s.arriving.empty()
		for _, d := range list {
			s.take(d)
		}
		if !open {
			return s.whyClosed()
		}
		return nil
	}
}

func (s *session) nextDue() (at time.Time, waiting bool) {
	for _, m := range s.hand {
		if !waiting || m.due.Before(at) {
			at, waiting = m.due, true
		}
	}
	if at.Before(s.resume) {
		at = s.resume
	}
	return at, waiting
}

func (s *session) take(d amqp.Delivery) {
	m := &message{Delivery: d}
	m.event, m.derived, m.reason = s.mapping.decode(m, s.cfg.Queue)
	s.hand = append(s.hand, m)
}

func (s *session) whyClosed() error {
	select {
	case <-s.cancelled:
		return &fault{about: "consume from queue " + s.cfg.Queue, err: errors.New("the broker cancelled the consumer: the queue was deleted, or has no leader")}
	default:
	}
	select {
	case err := <-s.closed:
		if err != nil {
			return &fault{about: theConnection, err: err}
		}
	default:
	}
	return &fault{about: theConnection, err: amqp.ErrClosed}
}

// next is the next batch that is due: at most half of what may be in hand, so that the other half arrives meanwhile.
func (s *session) next() []*message {
	var batch []*message
	now := time.Now()
	if now.Before(s.resume) {
		return nil
	}
	for _, m := range s.hand {
		if len(batch) == max(s.cfg.Prefetch/2, 1) {
			break
		}
		if !m.due.After(now) {
			batch = append(batch, m)
		}
	}
	return batch
}
