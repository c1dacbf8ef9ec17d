package events

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	mathrand "math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Delivery is one event handed to a [Handler].
type Delivery struct {
	StreamID string
	Event    *Event
	// Attempt is how often the event was handed out in this group, this time included. After a crash it may count
	// a time that no handler saw.
	Attempt int
}

// Handler handles a batch in one call. The error at index i is the outcome of delivery i: nil acknowledges it, an error
// leaves it pending, and it comes again, after 0.1 s at first and 30 s at most, for as long as it takes. A nil slice
// acknowledges all; one of another length, or a panic, none. The next batch comes when the handler has returned; the
// batch stays with this consumer however long that takes.
//
// A handler sees an event again after a crash between its return and the acknowledgement: it must stand that.
// When ctx ends, return soon: what wasn't handled goes to another consumer.
type Handler func(ctx context.Context, batch []Delivery) []error

// ConsumerOptions are the optional parts of a consumer; the zero value is useful.
type ConsumerOptions struct {
	// OnTrim is called after each look at the stream's tail, with the id before which no event is left.
	OnTrim func(ctx context.Context, firstID string)
	// FromNow lets a group that doesn't exist yet begin with what is published from now on. Default: with the oldest event.
	FromNow bool
	// Logger is where the consumer tells of outages, claims and bad entries. Default slog.Default().
	Logger *slog.Logger
}

// Consumer is a member of a durable group: every event goes to one member of each group.
type Consumer struct {
	client    *Client
	group     string
	handler   Handler
	onTrim    func(context.Context, string)
	fromNow   bool
	log       *slog.Logger
	trimEvery time.Duration
}

// trimEvery is how often, on average, each consumer looks whether the stream can be trimmed.
const trimEvery = 30 * time.Second

// NewConsumer returns a consumer of a durable group. The group exists from its first consumer's Run on, starts with the
// oldest event on the stream unless the options say otherwise, and holds back trimming until it is removed: see [Client.RemoveGroup].
func (c *Client) NewConsumer(group string, handler Handler, opts ConsumerOptions) (*Consumer, error) {
	if group == "" || len(group) > 128 || strings.ContainsFunc(group, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return nil, fmt.Errorf("consume events: group name %.140q must be 1 to 128 characters without spaces", group)
	}
	if handler == nil {
		return nil, fmt.Errorf("consume events of group %q: no handler", group)
	}
	log := opts.Logger
	if log == nil {
		log = slog.Default()
	}
	return &Consumer{
		client: c, group: group, handler: handler, onTrim: opts.OnTrim, fromNow: opts.FromNow,
		log: log.With("group", group), trimEvery: trimEvery,
	}, nil
}

// Consume runs a consumer of the group with default options until ctx ends: see [Consumer.Run].
func (c *Client) Consume(ctx context.Context, group string, handler Handler) error {
	consumer, err := c.NewConsumer(group, handler, ConsumerOptions{})
	if err != nil {
		return err
	}
	return consumer.Run(ctx)
}

// Run hands events to the handler until ctx ends, then returns nil as soon as the handler has returned. It waits for
// events inside Redis and starts with one as soon as it is stored. Events that it holds unhandled are released, and
// other consumers of the group are told. An outage of Redis is logged once and waited out.
//
// It also trims the stream, every half minute or so.
func (c *Consumer) Run(ctx context.Context) error {
	s := c.newSession()
	if !s.join(ctx) {
		return nil
	}
	// The hold is renewed until the last handler has returned, which is after ctx ended.
	holding, letGo := context.WithCancel(context.WithoutCancel(ctx))
	var background sync.WaitGroup
	background.Go(func() { s.keepHold(holding) })
	background.Go(func() { s.keepTrimmed(ctx) })
	reading, abandon := context.WithCancel(context.WithoutCancel(ctx))
	go s.readOnDemand(reading)

	s.serve(ctx)

	s.stopReading(ctx)
	abandon()
	letGo()
	background.Wait()
	s.leave(ctx)
	return nil
}

// session is one Run of a consumer: a member of the group by a name of its own.
type session struct {
	*Consumer
	name   string
	bell   string
	outage *outage
	begin  string // the place after which the group begins, if this session makes it

	mu   sync.Mutex
	held map[string]*item // everything delivered to this consumer and not acknowledged; guarded by mu

	// notClaimBefore is a time in Unix nanoseconds, see claim.
	notClaimBefore atomic.Int64

	ask      chan struct{}
	reads    chan read
	stopping chan struct{}

	// Of the goroutine of serve alone.
	reading bool
	retries []*item // failed, waiting for their time
	unacked []*item // handled, Redis didn't take the acknowledgement
	ackAt   time.Time
	ackTry  int
}

// item is an event that this consumer holds.
type item struct {
	id      string
	event   *Event
	attempt int
	seen    bool // a handler was called with it
	due     time.Time

	fault  error // it doesn't decode
	fields map[string]any
}

func (c *Consumer) newSession() *session {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	name := host + ":" + strconv.Itoa(os.Getpid()) + ":" + rand.Text()[:10]
	return &session{
		Consumer: c,
		name:     name,
		bell:     c.client.bellKey(c.group, name),
		begin:    Beginning,
		outage:   newOutage(c.log),
		held:     make(map[string]*item),
		ask:      make(chan struct{}, 1),
		reads:    make(chan read, 1),
		stopping: make(chan struct{}),
	}
}

func (c *Client) bellKey(group, consumer string) string { return c.keys.bell + group + ":" + consumer }

// join makes the group, and the bell that wakes this consumer alone; false if ctx ended before Redis answered.
func (s *session) join(ctx context.Context) bool {
	for try := 1; ; try++ {
		err := s.chooseBegin(ctx)
		if err == nil {
			err = s.createGroups(ctx)
		}
		if s.outage.note("join the group", err) == nil {
			return true
		}
		if !sleep(ctx.Done(), backoff(try, minWait, maxWait)) {
			return false
		}
	}
}

// chooseBegin takes the stream's oldest event, so that one published before the first worker came is not lost, unless the group is told
// to begin now.
func (s *session) chooseBegin(ctx context.Context) error {
	if !s.fromNow {
		return nil
	}
	now, err := s.client.newest(ctx)
	if err == nil {
		s.begin = now.String()
	}
	return err
}

// createGroups makes the groups, where they are missing. After a flush it makes all anew.
func (s *session) createGroups(ctx context.Context) error {
	c := s.client
	err := ignoreBusyGroup(c.rdb.XGroupCreateMkStream(ctx, c.keys.stream, s.group, s.begin).Err())
	if err == nil {
		err = ignoreBusyGroup(c.rdb.XGroupCreateMkStream(ctx, s.bell, s.group, "0").Err())
	}
	if err == nil {
		err = c.rdb.PExpire(ctx, s.bell, s.bellLife()).Err()
	}
	if err != nil {
		return fmt.Errorf("create group %q: %w", s.group, err)
	}
	return nil
}

// bellLife is how long the bell of a crashed consumer is left; a live one renews it with its hold.
func (s *session) bellLife() time.Duration { return max(10*s.client.cfg.ClaimAfter, time.Minute) }

func ignoreBusyGroup(err error) error {
	if err != nil && strings.HasPrefix(err.Error(), "BUSYGROUP") {
		return nil
	}
	return err
}

func isNoGroup(err error) bool {
	return err != nil && strings.Contains(err.Error(), "NOGROUP")
}

// serve calls the handler with what comes: new events, those of dead consumers, and those that failed before.
func (s *session) serve(ctx context.Context) {
	claim := time.NewTimer(0) // at once: a worker that went away may have left something
	defer claim.Stop()
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	for ctx.Err() == nil {
		s.askForMore()
		again.Reset(s.untilNextTry())
		select {
		case <-ctx.Done():
		case got := <-s.reads:
			s.reading = false
			if len(got.items) > 0 {
				s.deliver(ctx, got.items)
			}
			if got.rung {
				s.claim(ctx)
			}
		case <-claim.C:
			s.claim(ctx)
			claim.Reset(jitter(s.client.cfg.ClaimAfter / 2))
		case <-again.C:
			s.acknowledge(ctx, nil)
			s.retry(ctx)
		}
	}
}

// askForMore lets the reader fetch one more batch, unless so many events fail here that others should take them.
func (s *session) askForMore() {
	if s.reading || s.overloaded() {
		return
	}
	s.reading = true
	s.ask <- struct{}{}
}

func (s *session) overloaded() bool {
	return len(s.retries)+len(s.unacked) >= 10*s.client.cfg.Batch
}

func (s *session) untilNextTry() time.Duration {
	next := time.Now().Add(time.Hour)
	if len(s.unacked) > 0 {
		next = s.ackAt
	}
	for _, it := range s.retries {
		if it.due.Before(next) {
			next = it.due
		}
	}
	return max(0, time.Until(next))
}

func (s *session) hold(items ...*item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, it := range items {
		s.held[it.id] = it
	}
}

func (s *session) holds(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[id] != nil
}

func (s *session) drop(items ...*item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, it := range items {
		delete(s.held, it.id)
	}
}

// The waits between tries while Redis doesn't answer.
const (
	minWait = 50 * time.Millisecond
	maxWait = 2 * time.Second
)

// backoff doubles from shortest at try 1 to longest, and takes up to half of it off at random.
func backoff(try int, shortest, longest time.Duration) time.Duration {
	d := longest
	if try = max(try, 1); try < 30 {
		d = min(longest, time.Duration(math.Ldexp(float64(shortest), try-1)))
	}
	return d/2 + mathrand.N(d/2+1)
}

// jitter keeps a fleet's clocks apart: three quarters to five quarters of d.
func jitter(d time.Duration) time.Duration { return d*3/4 + mathrand.N(d/2+1) }

// sleep reports whether d passed before done.
func sleep(done <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return false
	case <-t.C:
		return true
	}
}

// outage logs the first of a row of failures, and the end of the row.
type outage struct {
	log   *slog.Logger
	mu    sync.Mutex
	since map[string]time.Time
}

func newOutage(log *slog.Logger) *outage { return &outage{log: log, since: make(map[string]time.Time)} }

func (o *outage) note(doing string, err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	since, down := o.since[doing]
	switch {
	case err == nil && down:
		delete(o.since, doing)
		o.log.Info("events: works again", "action", doing, "after", time.Since(since).Round(time.Millisecond))
	case err != nil && !down && !errors.Is(err, context.Canceled):
		o.since[doing] = time.Now()
		o.log.Warn("events: Redis refuses or doesn't answer; trying on, nothing is lost", "action", doing, "err", err)
	}
	return err
}
