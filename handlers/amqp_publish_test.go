package handlers_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/bellhop-dev/bellhop/handlers"
	"github.com/bellhop-dev/bellhop/internal/rabbittest"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

func newAMQP(t *testing.T, cfg handlers.AMQPConfig) *handlers.AMQP {
	t.Helper()
	h, err := handlers.NewAMQP(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// publishAs runs amqp:publish as a worker would: the payload comes from its JSON.
func publishAs(t *testing.T, h *handlers.AMQP, j *job.Job, p tasks.AMQPMessage) error {
	t.Helper()
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	j.Payload = data
	return tasks.PublishAMQP.HandledBy(h.Publish).Handle(job.NewContext(t.Context(), j), j)
}

func publish(t *testing.T, h *handlers.AMQP, p tasks.AMQPMessage) error {
	t.Helper()
	return publishAs(t, h, &job.Job{ID: "job-1"}, p)
}

func queue(t *testing.T, ch *amqp.Channel, name string, args amqp.Table) {
	t.Helper()
	if _, err := ch.QueueDeclare(name, true, false, false, false, args); err != nil {
		t.Fatal(err)
	}
}

func take(t *testing.T, ch *amqp.Channel, name string) (amqp.Delivery, bool) {
	t.Helper()
	d, there, err := ch.Get(name, true)
	if err != nil {
		t.Fatal(err)
	}
	return d, there
}

// A broker takes seconds to start: what is told of one is told in turn.
func TestAMQPPublish(t *testing.T) {
	t.Parallel()
	v := rabbittest.Start(t).VHost(t)
	ch := v.Channel(t)
	queue(t, ch, "q", amqp.Table{"x-queue-type": "quorum"})
	h := newAMQP(t, handlers.AMQPConfig{URL: v.URL(), Channels: 3})

	t.Run("the message arrives as it was meant", func(t *testing.T) {
		j := &job.Job{ID: "job-7"}
		err := publishAs(t, h, j, tasks.AMQPMessage{
			RoutingKey: "q", JSON: json.RawMessage(`{"n":9007199254740993}`), CorrelationID: "c", ReplyTo: "r", Type: "t", AppID: "a",
			Headers: map[string]any{"text": "x", "yes": true, "count": 3, "part": 0.5}, Expiration: "10m",
		})
		if err != nil {
			t.Fatal(err)
		}
		d, there := take(t, ch, "q")
		if !there {
			t.Fatal("it isn't in the queue")
		}
		got := []any{string(d.Body), d.ContentType, d.MessageId, d.CorrelationId, d.ReplyTo, d.Type, d.AppId, d.DeliveryMode, d.Expiration}
		want := []any{`{"n":9007199254740993}`, "application/json", "job-7", "c", "r", "t", "a", amqp.Persistent, "600000"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		delete(d.Headers, "x-delivery-count") // which the broker adds
		if diff := cmp.Diff(amqp.Table{"text": "x", "yes": true, "count": int64(3), "part": 0.5}, d.Headers); diff != "" {
			t.Errorf("headers (-want +got):\n%s", diff)
		}
		if got := string(j.Result()); got != `{"message_id":"job-7"}` {
			t.Errorf("the result is %s", got)
		}
	})

	t.Run("a message that no queue takes is final, and the next one goes", func(t *testing.T) {
		wantDiscard(t, publish(t, h, tasks.AMQPMessage{RoutingKey: "nowhere", Body: "x"}), "NO_ROUTE", `"nowhere"`, "bind")
		wantDiscard(t, publish(t, h, tasks.AMQPMessage{Exchange: "missing", Body: "x"}), "no exchange 'missing'")
		if err := publish(t, h, tasks.AMQPMessage{RoutingKey: "q", Body: "aGk=", Base64: true, MessageID: "mine"}); err != nil {
			t.Fatal(err)
		}
		if d, _ := take(t, ch, "q"); string(d.Body) != "hi" || d.MessageId != "mine" {
			t.Errorf("got %q with id %q", d.Body, d.MessageId)
		}
	})

	t.Run("a message that a full queue refuses is tried again", func(t *testing.T) {
		queue(t, ch, "full", amqp.Table{"x-max-length": 1, "x-overflow": "reject-publish"})
		if err := publish(t, h, tasks.AMQPMessage{RoutingKey: "full", Body: "1"}); err != nil {
			t.Fatal(err)
		}
		wantRetry(t, publish(t, h, tasks.AMQPMessage{RoutingKey: "full", Body: "2"}), "refused", "full")
	})

	t.Run("many go over few channels", func(t *testing.T) {
		const n = 200
		var wait sync.WaitGroup
		for i := range n {
			wait.Go(func() {
				if err := publishAs(t, h, &job.Job{ID: fmt.Sprint("m", i)}, tasks.AMQPMessage{RoutingKey: "q", Body: "x"}); err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		seen := make(map[string]bool)
		for range n {
			d, there := take(t, ch, "q")
			if !there {
				break
			}
			seen[d.MessageId] = true
		}
		if len(seen) != n {
			t.Errorf("%d of %d messages are in the queue", len(seen), n)
		}
	})

	t.Run("a lost connection is replaced", func(t *testing.T) {
		v.CloseConnections(t, "bellhop amqp:publish")
		deadline := time.Now().Add(time.Minute)
		for {
			err := publish(t, h, tasks.AMQPMessage{RoutingKey: "q", Body: "again"})
			if err == nil {
				return
			}
			wantRetry(t, err)
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	})

	t.Run("a wrong password is told without it", func(t *testing.T) {
		u, err := url.Parse(v.URL())
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword("guest", "canary-password")
		err = publish(t, newAMQP(t, handlers.AMQPConfig{URL: u.String()}), tasks.AMQPMessage{RoutingKey: "q"})
		wantRetry(t, err, "connect")
		if strings.Contains(err.Error(), "canary") {
			t.Errorf("the password is told: %v", err)
		}
	})

	t.Run("who has no time left spares the connection", func(t *testing.T) { sparesTheConnection(t, v) })

	t.Run("over TLS", func(t *testing.T) {
		b := v.Broker
		trusting := handlers.AMQPConfig{URL: "amqps://guest:guest@" + b.TLSAddr() + "/" + v.Name, CAFile: b.CAFile()}
		if err := publish(t, newAMQP(t, trusting), tasks.AMQPMessage{RoutingKey: "q"}); err != nil {
			t.Error(err)
		}
		strange := trusting
		strange.CAFile = ""
		wantRetry(t, publish(t, newAMQP(t, strange), tasks.AMQPMessage{RoutingKey: "q"}), "certificate")
	})

	t.Run("a broker short of memory is waited for, not for ever", func(t *testing.T) {
		v.Broker.SetMemoryLimit(t, "0")
		defer v.Broker.SetMemoryLimit(t, "0.6")
		queue(t, ch, "short", nil)
		blocked := newAMQP(t, handlers.AMQPConfig{URL: v.URL(), Timeout: 3 * time.Second})
		deadline := time.Now().Add(time.Minute)
		sent := 1
		err := publish(t, blocked, tasks.AMQPMessage{RoutingKey: "short"})
		for ; err == nil && time.Now().Before(deadline); sent++ { // it looks at its memory every few seconds
			err = publish(t, blocked, tasks.AMQPMessage{RoutingKey: "short"})
		}
		wantRetry(t, err, "memory")
		// What is written meanwhile would be taken later, once for each attempt.
		for range 3 {
			wantRetry(t, publish(t, blocked, tasks.AMQPMessage{RoutingKey: "short"}), "memory")
		}
		v.Broker.SetMemoryLimit(t, "0.6")
		for err = publish(t, blocked, tasks.AMQPMessage{RoutingKey: "short"}); err != nil; err = publish(t, blocked, tasks.AMQPMessage{RoutingKey: "short"}) {
			if time.Now().After(deadline) {
				t.Fatalf("afterwards: %v", err)
			}
		}
		q, err := ch.QueueDeclarePassive("short", true, false, false, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		if q.Messages < sent || q.Messages > sent+1 { // the last one before it was known may have been written
			t.Errorf("%d messages, %d were sent before it was known, and one afterwards", q.Messages, sent)
		}
	})
}

func TestAMQPWithoutABroker(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // it accepts, and never says a word
	silent := newAMQP(t, handlers.AMQPConfig{URL: "amqp://u:canary@" + l.Addr().String(), Timeout: 200 * time.Millisecond})
	err = publish(t, silent, tasks.AMQPMessage{RoutingKey: "q"})
	wantRetry(t, err, "connect")
	if strings.Contains(err.Error(), "canary") {
		t.Errorf("the password is told: %v", err)
	}
	wantRetry(t, publish(t, newAMQP(t, handlers.AMQPConfig{}), tasks.AMQPMessage{RoutingKey: "q"}), "handlers.amqp.url")
}

func TestAMQPRefusesPayloadsThatCannotWork(t *testing.T) {
	t.Parallel()
	h := newAMQP(t, handlers.AMQPConfig{URL: "amqp://127.0.0.1:1"})
	for want, p := range map[string]tasks.AMQPMessage{
		"routing_key":           {Body: "x"},
		"json: body is there":   {RoutingKey: "q", JSON: 1, Body: "x"},
		"body: is not base64":   {RoutingKey: "q", Body: "%", Base64: true},
		"expiration":            {RoutingKey: "q", Expiration: "soon"},
		"headers.list":          {RoutingKey: "q", Headers: map[string]any{"list": []int{1}}},
		"type: has 256 bytes":   {RoutingKey: "q", Type: strings.Repeat("x", 256)},
		"reply_to: has 300":     {RoutingKey: "q", ReplyTo: strings.Repeat("x", 300)},
		"exchange: has 256":     {Exchange: strings.Repeat("x", 256)},
		"headers: \"" + "yyyyy": {RoutingKey: "q", Headers: map[string]any{strings.Repeat("y", 256): "v"}},
	} {
		wantDiscard(t, publish(t, h, p), want)
	}
}

func TestAMQPConfigReportsEveryFault(t *testing.T) {
	t.Parallel()
	cfg := handlers.AMQPConfig{
		URL: "http://user:canary@host/", Password: "a", PasswordFile: "b", CertFile: "c", Channels: -1, Timeout: time.Hour,
	}
	err := handlers.Config{AMQP: cfg}.Validate()
	for _, part := range []string{"amqp.url:", "amqp.password:", "amqp.cert_file:", "amqp.channels:", "amqp.timeout:"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in %v", part, err)
		}
	}
	if err != nil && strings.Contains(err.Error(), "canary") {
		t.Errorf("the password is told: %v", err)
	}
	for name, cfg := range map[string]handlers.AMQPConfig{
		"tls with plain text": {URL: "amqp://host", CAFile: "ca.pem"},
		"parameters":          {URL: "amqps://host/?cacertfile=x"},
	} {
		if cfg.Validate() == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
	if _, err := handlers.NewAMQP(handlers.AMQPConfig{URL: "amqps://host", CAFile: "/missing"}); err == nil {
		t.Error("a missing file is taken")
	}
}
