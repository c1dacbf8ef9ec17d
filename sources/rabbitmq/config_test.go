package rabbitmq

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestConfigReportsEveryFault(t *testing.T) {
	t.Parallel()
	cfg := Config{
		URL: "http://user:canary@host", Password: "a", PasswordFile: "b", Topology: "declared", QueueType: "quorun", Prefetch: -1, DeliveryLimit: -1,
		Bindings:   []Binding{{}, {Exchange: "x", ExchangeType: "topics"}},
		DeadLetter: DeadLetter{RoutingKey: "k"},
		Mapping:    Mapping{Type: "${rooting_key}", ID: "${message_id", Subject: "${content}"},
	}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("it is taken")
	}
	for _, part := range []string{
		"url:", "password:", "queue:", `"declared"`, `did you mean "declare"?`, `did you mean "quorum"?`, "prefetch:", "delivery_limit:", "bindings[0].exchange:",
		`bindings[1].exchange_type: "topics"`, "dead_letter.routing_key:", `did you mean "routing_key"?`, "mapping.id:", "mapping.subject:",
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in:\n%v", part, err)
		}
	}
	if strings.Contains(err.Error(), "canary") {
		t.Errorf("the password is told:\n%v", err)
	}
	for name, cfg := range map[string]Config{
		"tls with plain text":   {Queue: "q", TLS: TLS{CAFile: "ca.pem"}},
		"parameters":            {Queue: "q", URL: "amqps://host/?cacertfile=x"},
		"half a certificate":    {Queue: "q", URL: "amqps://host", TLS: TLS{CertFile: "c"}},
		"a transient quorum":    {Queue: "q", Transient: true},
		"dead letters in place": {Queue: "q", DeadLetter: DeadLetter{Queue: "q"}},
	} {
		if cfg.Validate() == nil {
			t.Errorf("%s: it is taken", name)
		}
	}
}

func TestConfigDefaults(t *testing.T) {
	t.Parallel()
	got := Config{Queue: "a b"}.WithDefaults()
	want := Config{
		Name: "a b", URL: DefaultURL, Queue: "a b", Topology: Declare, QueueType: Quorum, DeliveryLimit: 1000, Prefetch: 500,
		DeadLetter: DeadLetter{Queue: "a b.dead", RoutingKey: "a b.dead"},
		Mapping:    Mapping{Type: "${type|routing_key}", Source: "/rabbitmq/a%20b", Subject: "${routing_key}", ID: "${message_id|content}"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if err := got.Validate(); err != nil {
		t.Errorf("with its defaults filled in it is refused: %v", err)
	}
}

func TestConfigTellsNoPassword(t *testing.T) {
	t.Parallel()
	cfg := Config{Queue: "q", URL: "amqp://user:canary@host/v", Password: "canary"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(verb, cfg); strings.Contains(text, "canary") {
			t.Errorf("%s tells the password: %s", verb, text)
		}
	}
	if text := cfg.LogValue().String(); strings.Contains(text, "canary") {
		t.Errorf("a log tells the password: %s", text)
	}
}
