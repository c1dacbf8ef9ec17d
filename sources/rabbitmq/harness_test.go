package rabbitmq_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/goleak"

	"github.com/bellhop-dev/bellhop/internal/rabbittest"
	"github.com/bellhop-dev/bellhop/sources"
	"github.com/bellhop-dev/bellhop/sources/rabbitmq"
	"github.com/bellhop-dev/bellhop/sources/sourcetest"
)

func TestMain(m *testing.M) {
	sourcetest.Main(m, func(settings string, logger *slog.Logger) (sources.Source, error) {
		var cfg rabbitmq.Config
		if err := json.Unmarshal([]byte(settings), &cfg); err != nil {
			return nil, fmt.Errorf("read the settings: %w", err)
		}
		return rabbitmq.New(cfg, logger)
	},
		// The broker that tests share ends with the process.
		goleak.IgnoreAnyFunction("github.com/bellhop-dev/bellhop/internal/rabbittest.startProcess.func1"),
		goleak.IgnoreAnyFunction("os/exec.(*Cmd).Start.func2"),
	)
}

// harness is a virtual host with one source's queue, "orders".
type harness struct {
	v    *rabbittest.VHost
	wire *wire
	cfg  rabbitmq.Config
	conn *amqp.Connection
	ch   *amqp.Channel
	ends sync.Once // the test closes conn
}

func newHarness(t *testing.T, b *rabbittest.Broker) *harness {
	t.Helper()
	v := b.VHost(t)
	h := &harness{v: v, wire: newWire(t, b.Addr())}
	h.cfg = rabbitmq.Config{URL: strings.Replace(v.URL(), b.Addr(), h.wire.addr, 1), Queue: "orders", Prefetch: 200}
	h.declare(t)
	return h
}

// declare has the source make its queues.
func (h *harness) declare(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Source(t, slog.New(slog.DiscardHandler)).Run(ctx, nil) }()
	eventually(t, "the queues are made", func() bool {
		return h.count("orders") == 0 && h.count("orders.dead") == 0
	})
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func (h *harness) Settings() string {
	text, err := json.Marshal(h.cfg)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func (h *harness) Source(t testing.TB, logger *slog.Logger) sources.Source {
	t.Helper()
	s, err := rabbitmq.New(h.cfg, logger)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (h *harness) Send(t testing.TB, ids ...string) {
	t.Helper()
	list := make([]amqp.Publishing, len(ids))
	for i, id := range ids {
		list[i] = amqp.Publishing{MessageId: id, Type: "com.acme.order", ContentType: "application/json", Body: []byte(`{"id":"` + id + `"}`)}
	}
	h.send(t, list...)
}

func (h *harness) SendPoison(t testing.TB, n int) {
	t.Helper()
	for range n {
		h.send(t, amqp.Publishing{ContentType: "application/cloudevents+json", Body: []byte(`{"specversion":"1.0","type":`)})
	}
}

// send publishes until all are confirmed, also over an outage of the broker.
func (h *harness) send(t testing.TB, list ...amqp.Publishing) {
	t.Helper()
	h.ends.Do(func() { t.Cleanup(h.close) })
	deadline := time.Now().Add(limit)
	for {
		err := h.trySend(list)
		if err == nil {
			return
		}
		h.close()
		if time.Now().After(deadline) {
			t.Errorf("send: %v", err)
			return
		}
		time.Sleep(50 * time.Millisecond) //nolint:forbidigo // nothing tells when a broker is back
	}
}

func (h *harness) trySend(list []amqp.Publishing) error {
	if err := h.open(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	confirms := make([]*amqp.DeferredConfirmation, len(list))
	for i, p := range list {
		p.DeliveryMode = amqp.Persistent
		var err error
		if confirms[i], err = h.ch.PublishWithDeferredConfirm("", "orders", true, false, p); err != nil {
			return err
		}
	}
	for _, c := range confirms {
		if acked, err := c.WaitContext(ctx); err != nil || !acked {
			return fmt.Errorf("not confirmed: %w", err)
		}
	}
	return nil
}

func (h *harness) open() error {
	if h.ch != nil && !h.ch.IsClosed() {
		return nil
	}
	h.close()
	var err error
	if h.conn, err = amqp.Dial(h.v.URL()); err != nil {
		return err
	}
	if h.ch, err = h.conn.Channel(); err != nil {
		return err
	}
	return h.ch.Confirm(false)
}

func (h *harness) close() {
	if h.conn != nil {
		_ = h.conn.CloseDeadline(time.Now().Add(time.Second))
	}
	h.conn, h.ch = nil, nil
}

func (h *harness) Waiting(t testing.TB) int {
	t.Helper()
	return h.count("orders")
}

// count is how many messages are ready, -1 when nobody can tell.
func (h *harness) count(queue string) int {
	conn, err := amqp.Dial(h.v.URL())
	if err != nil {
		return -1
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return -1
	}
	q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		return -1
	}
	return q.Messages
}

func (h *harness) SetAside(t testing.TB) []string {
	t.Helper()
	var reasons []string
	for _, d := range h.dead(t) {
		reason, _ := d.Headers["x-bellhop-reason"].(string)
		reasons = append(reasons, reason)
	}
	return reasons
}

// dead looks at the dead letters and leaves them there: the connection's end puts them back.
func (h *harness) dead(t testing.TB) []amqp.Delivery {
	t.Helper()
	conn, err := amqp.Dial(h.v.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	var list []amqp.Delivery
	for {
		d, there, err := ch.Get("orders.dead", false)
		if err != nil {
			t.Fatal(err)
		}
		if !there {
			return list
		}
		list = append(list, d)
	}
}

func (h *harness) Cut(t testing.TB) {
	t.Helper()
	h.wire.cut()
}

func (h *harness) Crash(t testing.TB) {
	t.Helper()
	h.v.Broker.Kill(t)
	h.v.Broker.Restart(t)
}

const limit = 2 * time.Minute

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(10 * time.Millisecond) { //nolint:forbidigo // the helper that polls, with a deadline
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, limit)
		}
	}
}
