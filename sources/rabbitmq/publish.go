package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bellhop-dev/bellhop/events"
)

// publish publishes the events of a batch in one call, and sets aside what is none. What fails is due again later: it stays in
// hand, where it costs neither a delivery nor a round trip.
func (s *session) publish(ctx context.Context, batch []*message) {
	var fault error
	if err := s.publishEvents(ctx, batch); err != nil {
		fault = err
	}
	if err := s.setAside(ctx, batch); err != nil {
		fault = err
	}
	if ctx.Err() != nil {
		return
	}
	if fault != nil {
		s.taking.begin(fault)
		s.postpone(batch)
		return
	}
	s.failures = 0
	if !slices.ContainsFunc(s.hand, func(m *message) bool { return !m.done && m.tries > 0 }) {
		s.taking.end()
	}
}

func (s *session) publishEvents(ctx context.Context, batch []*message) error {
	var going []*message
	var list []*events.Event
	for _, m := range batch {
		if m.event != nil {
			going, list = append(going, m), append(list, m.event)
		}
	}
	if len(going) == 0 {
		return nil
	}
	for _, m := range going {
		m.tries++
	}
	outcomes, err := s.to.Publish(ctx, list...)
	if len(outcomes) != len(going) {
		if err == nil {
			err = fmt.Errorf("%d answers for %d events", len(outcomes), len(going))
		}
		return &fault{about: "publish", err: err}
	}
	var failed error
	for i, m := range going {
		switch o := outcomes[i]; {
		case o.Err == nil:
			m.stored(o)
		case errors.Is(o.Err, events.ErrInvalid), errors.Is(o.Err, events.ErrTooLarge):
			m.event, m.reason = nil, o.Err
		default:
			failed = &fault{about: "publish", err: o.Err}
		}
	}
	return failed
}

// stored marks the message as done, unless its event was a twin: equal to an earlier message, but the broker says that this
// one was never delivered before. It goes again under an id of its own.
func (m *message) stored(o events.Published) {
	if o.Duplicate && m.derived && !m.Redelivered && m.tries == 1 {
		twin := *m.event
		twin.ID += "-" + randomID()
		m.event, m.derived = &twin, false
		return
	}
	m.done = true
}

// longestPause keeps a recovery from being noticed late.
const longestPause = 2 * time.Second

// postpone has what is left of the batch go again later. Where nothing went, the publisher takes nothing at all: then everything
// waits, what is yet to arrive too, or each arrival would knock at a closed door. Where some went, the others wait for themselves.
func (s *session) postpone(batch []*message) {
	now := time.Now()
	if !slices.ContainsFunc(batch, func(m *message) bool { return m.done }) {
		s.resume = now.Add(min(wait(s.failures), longestPause))
		s.failures++
		return
	}
	s.failures = 0
	for _, m := range batch {
		if !m.done {
			m.due = now.Add(wait(max(m.tries-1, 0)))
		}
	}
}

// acknowledge tells the broker what is done: the beginning of the hand in one acknowledgement, what lies behind a message that
// still waits one by one.
func (s *session) acknowledge() error {
	prefix := 0
	for prefix < len(s.hand) && s.hand[prefix].done {
		prefix++
	}
	if prefix > 0 {
		if err := s.ch.Ack(s.hand[prefix-1].DeliveryTag, true); err != nil {
			return &fault{about: theConnection, err: fmt.Errorf("acknowledge: %w", err)}
		}
	}
	left := s.hand[:0]
	for _, m := range s.hand[prefix:] {
		if !m.done {
			left = append(left, m)
			continue
		}
		if err := s.ch.Ack(m.DeliveryTag, false); err != nil {
			return &fault{about: theConnection, err: fmt.Errorf("acknowledge: %w", err)}
		}
	}
	s.acknowledged = s.acknowledged || len(left) < len(s.hand)
	clear(s.hand[len(left):])
	s.hand = left
	return nil
}

// setAside sends what is no event to the dead letters.
func (s *session) setAside(ctx context.Context, batch []*message) error {
	aside, reason := 0, error(nil)
	var failed error
	for _, m := range batch {
		if m.reason == nil || failed != nil {
			continue
		}
		if failed = s.dead.send(ctx, m); failed == nil {
			m.done = true
			aside, reason = aside+1, m.reason
		} else {
			m.tries++
		}
	}
	if aside > 0 {
		s.log.Warn("messages set aside: they are no events", "count", aside, "queue", s.cfg.Queue,
			"dead_letter", s.cfg.DeadLetter.name(), "last_reason", cut(reason.Error(), 200))
	}
	return failed
}
