package rabbitmq_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/bellhop-dev/bellhop/internal/rabbittest"
	"github.com/bellhop-dev/bellhop/sources/rabbitmq"
)

// A broker that is short of memory reads nothing more from whoever publishes. A dead letter longer than what the sockets hold is stuck
// half-way then: neither the messages behind it nor the source's end wait for it.
func TestABlockedBrokerHoldsUpNothingElse(t *testing.T) {
	t.Parallel()
	b := rabbittest.Start(t)
	h := newHarness(t, b)
	h.send(t, amqp.Publishing{ContentType: "application/cloudevents+json", Body: bytes.Repeat([]byte("{"), 15<<20)})
	h.Send(t, "behind", "and that")
	h.close()
	b.SetMemoryLimit(t, "0")
	to, _, stop := begin(t, h.cfg)
	eventually(t, "what is behind it is taken", func() bool { return len(to.events()) == 2 })
	stopped := make(chan struct{})
	go func() { defer close(stopped); stop() }()
	select {
	case <-stopped:
	case <-time.After(time.Minute):
		t.Fatal("Run does not end")
	}
}

// Where each connection ends with its first message, the source comes back ever more seldom: each time counts towards the limit at which
// the broker gives the message up.
func TestAConnectionThatNeverLastsIsNoStorm(t *testing.T) {
	t.Parallel()
	v := rabbittest.Shared(t).VHost(t)
	h := &harness{v: v, cfg: rabbitmq.Config{URL: v.URL(), Queue: "orders"}}
	h.declare(t)
	h.Send(t, "one")
	h.close()
	w := newWire(t, v.Broker.Addr(), []byte(`{"id":"one"}`)...)
	h.cfg.URL = strings.Replace(v.URL(), v.Broker.Addr(), w.addr, 1)
	_, _, stop := begin(t, h.cfg)
	time.Sleep(4 * time.Second) //nolint:forbidigo // a slow machine makes fewer connections, never more
	stop()
	made := w.made.Load()
	t.Logf("%d connections in 4 s", made)
	if made > 10 {
		t.Errorf("%d connections in 4 s", made)
	}
}
