package events

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
)

// SubscribeOption changes how [Client.Subscribe] works.
type SubscribeOption func(*subscription)

// FromNow begins with what is published from now on. It is the default without a group; a durable group that exists goes on where it was.
func FromNow() SubscribeOption { return func(s *subscription) { s.from = fromNow } }

// FromOldest begins with the oldest event that is kept: the default of a durable group that doesn't exist yet.
func FromOldest() SubscribeOption { return func(s *subscription) { s.from = fromOldest } }

// Concurrently calls fn for up to n events at once, in no order. Default 1: one after the other, in the stream's order, but for those
// that failed. It means nothing without a group.
func Concurrently(n int) SubscribeOption { return func(s *subscription) { s.concurrency = n } }

// GiveUpAfter lets an event go after fn has failed on it n times; the log tells of it. Default: never. It means nothing without a group.
func GiveUpAfter(n int) SubscribeOption { return func(s *subscription) { s.attempts = n } }

// LogTo is where a subscription tells of failures and outages. Default slog.Default().
func LogTo(log *slog.Logger) SubscribeOption { return func(s *subscription) { s.log = log } }

type begin int

const (
	fromDefault begin = iota
	fromNow
	fromOldest
)

type subscription struct {
	fn          func(context.Context, Delivery) error
	pattern     Pattern
	from        begin
	concurrency int
	attempts    int
	log         *slog.Logger
}

// Subscribe calls fn with the events whose type matches the pattern, see [Pattern], until ctx ends; then it returns nil as soon as fn
// has returned.
//
// With a group it is durable: every event goes to one subscriber of the group, wherever they run, also the events of the times when none
// did, and those of a subscriber that died. It comes again as long as fn returns an error, after 0.1 s at first and 30 s at most; fn must
// stand to see an event twice. What doesn't match is acknowledged without a call: all subscribers of a group should have one pattern.
// The group holds back trimming until each event is acknowledged, even while nobody subscribes: remove a retired one with
// [Client.RemoveGroup], or it fills the stream. Its name must be its own: who shares a name shares the events.
//
// Without a group ("") it is a tail: this subscriber sees every event from now on, once, and nothing waits for it. A failure of fn is
// logged and the event passed over; so are events that were trimmed before they could be read.
func (c *Client) Subscribe(ctx context.Context, group, pattern string, fn func(context.Context, Delivery) error, opts ...SubscribeOption) error {
	s := &subscription{fn: fn, concurrency: 1, log: slog.Default()}
	for _, opt := range opts {
		opt(s)
	}
	var faults []error
	var err error
	if s.pattern, err = CompilePattern(pattern); err != nil {
		faults = append(faults, err)
	}
	if fn == nil {
		faults = append(faults, errors.New("no function to call"))
	}
	if s.concurrency < 1 {
		faults = append(faults, fmt.Errorf("concurrency is %d, at least 1 is needed", s.concurrency))
	}
	if s.attempts < 0 {
		faults = append(faults, fmt.Errorf("give up after %d attempts: at least 1 is needed, or leave it off", s.attempts))
	}
	if len(faults) > 0 {
		return fmt.Errorf("subscribe to events: %w", errors.Join(faults...))
	}
	s.log = cmp.Or(s.log, slog.Default())
	if group == "" {
		return s.tail(ctx, c)
	}
	consumer, err := c.NewConsumer(group, s.handle, ConsumerOptions{FromNow: s.from == fromNow, Logger: s.log})
	if err != nil {
		return fmt.Errorf("subscribe to events: %w", err)
	}
	return consumer.Run(ctx)
}

// handle is the [Handler] of a durable subscription.
func (s *subscription) handle(ctx context.Context, batch []Delivery) []error {
	outcomes := make([]error, len(batch))
	var wg sync.WaitGroup
	slots := make(chan struct{}, s.concurrency)
	for i, d := range batch {
		if !s.pattern.Match(d.Event.Type) {
			continue
		}
		if ctx.Err() != nil {
			outcomes[i] = ctx.Err() // released, others take it
			continue
		}
		if s.concurrency == 1 {
			outcomes[i] = s.outcome(ctx, d)
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			outcomes[i] = s.outcome(ctx, d)
			<-slots
		})
	}
	wg.Wait()
	return outcomes
}

func (s *subscription) outcome(ctx context.Context, d Delivery) error {
	err := s.call(ctx, d)
	if err == nil || s.attempts == 0 || d.Attempt < s.attempts || ctx.Err() != nil {
		return err
	}
	s.log.Error("events: event given up, it failed as often as it may; it stays on the stream for a while, to be replayed",
		"stream_id", d.StreamID, "attempt", d.Attempt, "err", err)
	return nil
}

// call makes an error of a panic: it is of this event alone.
func (s *subscription) call(ctx context.Context, d Delivery) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("subscriber panicked: %v\n%s", p, debug.Stack())
		}
	}()
	return s.fn(ctx, d)
}

// tail is a subscription without a group.
func (s *subscription) tail(ctx context.Context, c *Client) error {
	outage := newOutage(s.log)
	var t *Tail
	for try := 1; ; try++ {
		var err error
		t, err = c.Tail(ctx, s.after(), s.pattern.String())
		if outage.note("subscribe to events", err) == nil {
			break
		}
		if !sleep(ctx.Done(), backoff(try, minWait, maxWait)) {
			return nil
		}
	}
	defer t.Close()
	for {
		e, err := t.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrTrimmed):
			s.log.Warn("events: a subscriber was overtaken by trimming and missed events; use a durable group if it must see all", "err", err)
		case err != nil:
			return fmt.Errorf("subscribe to events: %w", err)
		case e.Event != nil:
			if err := s.call(ctx, Delivery{StreamID: e.StreamID, Event: e.Event, Attempt: 1}); err != nil {
				s.log.Warn("events: a subscriber without a group failed on an event, which is passed over", "stream_id", e.StreamID, "err", err)
			}
		}
	}
}

func (s *subscription) after() string {
	if s.from == fromOldest {
		return Beginning
	}
	return ""
}
