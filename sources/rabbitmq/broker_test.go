package rabbitmq_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/internal/rabbittest"
	"github.com/bellhop-dev/bellhop/sources/rabbitmq"
)

// taken collects events instead of Redis, with its answers: the same source and id are stored once.
type taken struct {
	mu   sync.Mutex
	list []*events.Event
}

func (s *taken) Publish(_ context.Context, list ...*events.Event) ([]events.Published, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	outcomes := make([]events.Published, len(list))
	for i, e := range list {
		outcomes[i].Duplicate = slices.ContainsFunc(s.list, func(o *events.Event) bool { return o.ID == e.ID && o.Source == e.Source })
		if !outcomes[i].Duplicate {
			s.list = append(s.list, e)
		}
	}
	return outcomes, nil
}

func (s *taken) events() []*events.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.list)
}

// lockedBuffer is a log that can be read meanwhile.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// begin runs a source until the test ends, or stop is called.
func begin(t *testing.T, cfg rabbitmq.Config) (to *taken, log *lockedBuffer, stop func()) {
	t.Helper()
	to, log = new(taken), new(lockedBuffer)
	source, err := rabbitmq.New(cfg, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- source.Run(ctx, to) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return to, log, stop
}

func TestEqualMessagesAreEventsOfTheirOwn(t *testing.T) {
	t.Parallel()
	h := newHarness(t, rabbittest.Shared(t))
	tick := amqp.Publishing{Type: "tick", Body: []byte("{}")}
	to, _, stop := begin(t, h.cfg)
	h.send(t, tick, tick, tick)
	eventually(t, "three ticks", func() bool { return len(to.events()) == 3 })

	// Handed out again, a message without an id is the event that it was: the place forgets nothing of it.
	stop()
	eventually(t, "nothing is left", func() bool { return h.count("orders") == 0 })
	h.send(t, tick)
	ch := h.v.Channel(t)
	d, there, err := ch.Get("orders", false)
	if err != nil || !there {
		t.Fatal(there, err)
	}
	if err := d.Nack(false, true); err != nil {
		t.Fatal(err)
	}
	again, _, stop := begin(t, h.cfg)
	eventually(t, "it comes", func() bool { return len(again.events()) == 1 })
	stop()
	if got, want := again.events()[0].ID, to.events()[0].ID; got != want {
		t.Errorf("redelivered, the id is %s and was %s", got, want)
	}
}

func TestDeadLettersKeepTheMessage(t *testing.T) {
	t.Parallel()
	h := newHarness(t, rabbittest.Shared(t))
	_, log, _ := begin(t, h.cfg)
	h.send(t, amqp.Publishing{
		ContentType: "application/json", Body: []byte(`{"half":`), MessageId: "m1", CorrelationId: "c", Expiration: "3600000", UserId: "guest",
		// The broker would send copies where CC says: into the queue that it came from, for ever.
		Headers: amqp.Table{"tenant": "acme", "CC": []any{"orders.elsewhere"}},
	})
	eventually(t, "it is set aside", func() bool { return h.count("orders.dead") == 1 })
	d := h.dead(t)[0]
	got := map[string]any{}
	for _, name := range []string{
		"tenant", "CC", "x-bellhop-cc", "x-bellhop-source", "x-bellhop-queue", "x-bellhop-routing-key", "x-bellhop-user-id", "x-bellhop-expiration",
	} {
		got[name] = d.Headers[name]
	}
	want := map[string]any{
		"tenant": "acme", "CC": nil, "x-bellhop-cc": []any{"orders.elsewhere"}, "x-bellhop-source": "orders", "x-bellhop-queue": "orders",
		"x-bellhop-routing-key": "orders", "x-bellhop-user-id": "guest", "x-bellhop-expiration": "3600000",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if string(d.Body) != `{"half":` || d.MessageId != "m1" || d.CorrelationId != "c" || d.Expiration != "" || d.DeliveryMode != amqp.Persistent {
		t.Errorf("the message became %q, id %q, %q, expiration %q, mode %d", d.Body, d.MessageId, d.CorrelationId, d.Expiration, d.DeliveryMode)
	}
	if reason, _ := d.Headers["x-bellhop-reason"].(string); !strings.Contains(reason, "data: is not JSON") {
		t.Errorf("the reason is %q", reason)
	}
	if text := log.String(); !strings.Contains(text, "count=1") || strings.Contains(text, "half") {
		t.Errorf("logged:\n%s", text)
	}
}

func TestAMissingDeadLetterQueueLosesNothing(t *testing.T) {
	t.Parallel()
	h := newHarness(t, rabbittest.Shared(t))
	to, log, stop := begin(t, h.cfg)
	eventually(t, "it consumes", func() bool { h.Send(t, "first"); return len(to.events()) > 0 })
	if _, err := h.v.Channel(t).QueueDelete("orders.dead", false, false, false); err != nil {
		t.Fatal(err)
	}
	h.SendPoison(t, 2)
	h.Send(t, "behind")
	eventually(t, "it is told what to do", func() bool { return strings.Contains(log.String(), "make the queue") })
	eventually(t, "what is behind them goes on", func() bool { return len(to.events()) == 2 })
	stop()
	eventually(t, "they are back", func() bool { return h.count("orders") == 2 })

	begin(t, h.cfg) // declares it again
	eventually(t, "they are set aside", func() bool { return h.count("orders.dead") == 2 })
}

// A message that kills whatever takes it comes back until the broker has counted to the limit.
func TestWhatKillsItsProcessEndsAmongTheDeadLetters(t *testing.T) {
	t.Parallel()
	v := rabbittest.Shared(t).VHost(t)
	h := &harness{v: v, cfg: rabbitmq.Config{URL: v.URL(), Queue: "orders", DeliveryLimit: 3}}
	h.declare(t)
	h.Send(t, "deadly")
	deaths := 0
	eventually(t, "the broker gives it up", func() bool {
		conn := v.Connect(t)
		ch, err := conn.Channel()
		if err != nil {
			t.Fatal(err)
		}
		if _, there, err := ch.Get("orders", false); err == nil && there {
			deaths++
		}
		conn.Close() // with the message in hand
		return h.count("orders.dead") == 1
	})
	if deaths != 4 {
		t.Errorf("it was handed out %d times, the limit is 3 times more than once", deaths)
	}
}

func TestMissingTopologyIsWaitedFor(t *testing.T) {
	t.Parallel()
	v := rabbittest.Shared(t).VHost(t)
	ch := v.Channel(t)
	to, log, _ := begin(t, rabbitmq.Config{URL: v.URL(), Queue: "orders", Topology: rabbitmq.Expect})
	eventually(t, "it says what to do", func() bool {
		return strings.Contains(log.String(), "no queue 'orders'") && strings.Contains(log.String(), "topology: declare")
	})
	for _, name := range []string{"orders.dead", "orders"} {
		if _, err := ch.QueueDeclare(name, true, false, false, false, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := ch.Publish("", "orders", true, false, amqp.Publishing{MessageId: "one"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it goes on", func() bool { return len(to.events()) == 1 })
	if n := strings.Count(log.String(), "level=WARN"); n > 2 {
		t.Errorf("logged %d times:\n%s", n, log)
	}
}

func TestADeletedQueueIsDeclaredAgain(t *testing.T) {
	t.Parallel()
	h := newHarness(t, rabbittest.Shared(t))
	to, log, _ := begin(t, h.cfg)
	h.Send(t, "before")
	eventually(t, "it works", func() bool { return len(to.events()) == 1 })
	if _, err := h.v.Channel(t).QueueDelete("orders", false, false, false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is told", func() bool { return strings.Contains(log.String(), "queue was deleted") })
	eventually(t, "it is back", func() bool { return h.count("orders") == 0 })
	h.Send(t, "after")
	eventually(t, "it works again", func() bool { return len(to.events()) == 2 })
}

func TestAQueueWithOtherSettingsIsToldOf(t *testing.T) {
	t.Parallel()
	v := rabbittest.Shared(t).VHost(t)
	if _, err := v.Channel(t).QueueDeclare("orders", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	_, log, _ := begin(t, rabbitmq.Config{URL: v.URL(), Queue: "orders"})
	eventually(t, "it is told", func() bool { return strings.Contains(log.String(), "topology: expect") })
}

func TestBindingsBringMessages(t *testing.T) {
	t.Parallel()
	v := rabbittest.Shared(t).VHost(t)
	cfg := rabbitmq.Config{
		URL: v.URL(), Queue: "orders",
		Bindings: []rabbitmq.Binding{{Exchange: "shop", ExchangeType: "topic", RoutingKeys: []string{"order.*", "payment.#"}}},
		Mapping:  rabbitmq.Mapping{Type: "com.acme.${routing_key}", Subject: "${header.order|message_id}", Source: "/shop/${app_id|exchange}"},
	}
	to, _, _ := begin(t, cfg)
	ch := v.Channel(t)
	eventually(t, "the exchange is there", func() bool {
		probe, err := v.Connect(t).Channel()
		return err == nil && probe.ExchangeDeclarePassive("shop", "topic", true, false, false, false, nil) == nil
	})
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the binding takes messages", func() bool {
		c, err := ch.PublishWithDeferredConfirm("shop", "order.made", false, false, amqp.Publishing{MessageId: "m1", Headers: amqp.Table{"order": int64(7)}})
		return err == nil && c.Wait() && len(to.events()) > 0
	})
	e := to.events()[0]
	if e.Type != "com.acme.order.made" || e.Source != "/shop/shop" || e.Subject != "7" || e.ID != "m1" {
		t.Errorf("got type %q, source %q, subject %q, id %q", e.Type, e.Source, e.Subject, e.ID)
	}
}

func TestTLSAndLogIn(t *testing.T) {
	t.Parallel()
	b := rabbittest.Shared(t)
	h := newHarness(t, b)
	cfg := h.cfg
	cfg.URL = "amqps://guest:canary-password@" + b.TLSAddr() + "/" + h.v.Name
	cfg.Password = "guest"
	cfg.TLS.CAFile = b.CAFile()
	to, _, _ := begin(t, cfg)
	h.Send(t, "one")
	eventually(t, "it comes over TLS", func() bool { return len(to.events()) == 1 })

	strange := cfg
	strange.TLS = rabbitmq.TLS{}
	_, untrusted, _ := begin(t, strange)
	eventually(t, "a stranger is refused", func() bool { return strings.Contains(untrusted.String(), "certificate") })

	wrong := cfg
	wrong.Password = ""
	_, refused, _ := begin(t, wrong)
	eventually(t, "a wrong password is told", func() bool { return strings.Contains(refused.String(), "check the user") })
	if strings.Contains(refused.String()+untrusted.String(), "canary") {
		t.Errorf("the password is logged:\n%s", refused)
	}
}
