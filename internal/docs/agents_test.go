package docs_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/bellhop-dev/bellhop/internal/rabbittest"
)

// What examples/agents/README.md says of RabbitMQ: a payment that comes by the queue is the event that Stripe's webhook tells of, so
// that its workflow runs once. The example's own test has the rest of that page.
func TestAgentsTakeAPaymentFromRabbitMQ(t *testing.T) {
	t.Parallel()
	vhost := rabbittest.Shared(t).VHost(t)
	dir := t.TempDir()
	agents := startAgents(t, dir)
	v := &visitor{t: t, dir: dir}
	w := v.start("env BELLHOP_SOURCES_RABBITMQ='" + sourceOfReadme(t, vhost) + "' go run ./cmd/worker --dev --config config/bellhop.yaml")
	defer w.stop()
	gateway := strings.Fields(w.logs(`Gateway http://`))[1]

	body := `{"id": "evt_9", "type": "payment_intent.succeeded", "data": {"object": {"id": "pi_9", "amount": 4200, "currency": "eur"}}}`
	publish(t, vhost, body)
	confirmed := func() bool { return strings.Count(get(t, agents+"/runs"), `"event": "evt_9"`) == 3 }
	within(t, "the payment is confirmed, and told to two others", confirmed)

	out := v.shell(`body='` + body + `'; now=$(date +%s)
	curl -sS "` + gateway + `/hooks/stripe" -H 'Content-Type: application/json' -d "$body" \
		-H "Stripe-Signature: t=$now,v1=$(printf '%s' "$now.$body" | openssl dgst -sha256 -hmac "$(cat secrets/stripe)" | sed 's/^.* //')"`)
	if !strings.Contains(out, `"duplicate":true`) {
		t.Errorf("the webhook of the same payment: %s", out)
	}
	publish(t, vhost, strings.ReplaceAll(body, "evt_9", "evt_10"))
	within(t, "the next payment is confirmed", func() bool { return strings.Count(get(t, agents+"/runs"), `"event": "evt_10"`) == 3 })
	if !confirmed() {
		t.Errorf("the payment was not handled once:\n%s", get(t, agents+"/runs"))
	}
}

// sourceOfReadme is what the page exports, with the broker of this test.
func sourceOfReadme(t *testing.T, vhost *rabbittest.VHost) string {
	t.Helper()
	page := strings.Join(linesOf(t, "examples/agents/README.md"), "\n")
	m := regexp.MustCompile(`export BELLHOP_SOURCES_RABBITMQ='\[\{(.*)\}\]'`).FindStringSubmatch(page)
	if m == nil {
		t.Fatal("examples/agents/README.md exports no BELLHOP_SOURCES_RABBITMQ")
	}
	return `[{url: "` + vhost.URL() + `", ` + m[1] + `}]`
}

// startAgents runs the example's service, and puts its files beside it.
func startAgents(t *testing.T, dir string) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	for _, name := range []string{"secrets.sh", "config/bellhop.yaml", "config/triggers.yaml"} {
		text := strings.ReplaceAll(strings.Join(linesOf(t, "examples/agents/"+name), "\n"), "127.0.0.1:9000", addr)
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	(&visitor{t: t, dir: dir}).shell("bash secrets.sh")

	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "agents"), ".")
	build.Dir = filepath.Join(root, "examples/agents")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the agents: %v\n%s", err, out)
	}
	service := exec.CommandContext(context.WithoutCancel(t.Context()), filepath.Join(dir, "agents"), "-addr", addr, "-secrets", filepath.Join(dir, "secrets"))
	if err := service.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = service.Process.Kill()
		_ = service.Wait()
	})
	within(t, "the agents answer", func() bool {
		return exec.CommandContext(t.Context(), filepath.Join(dir, "agents"), "-addr", addr, "-check").Run() == nil
	})
	return "http://" + addr
}

// publish sends the message that README.md describes, once the worker has declared the queue.
func publish(t *testing.T, vhost *rabbittest.VHost, body string) {
	t.Helper()
	awaitQueue(t, vhost, "payments")
	var event struct{ ID, Type string }
	if err := json.Unmarshal([]byte(body), &event); err != nil {
		t.Fatal(err)
	}
	err := vhost.Channel(t).PublishWithContext(t.Context(), "", "payments", true, false, amqp.Publishing{
		MessageId: event.ID, Type: event.Type, ContentType: "application/json", DeliveryMode: amqp.Persistent, Body: []byte(body),
	})
	if err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// shell runs what no single command is.
func (v *visitor) shell(script string) string {
	v.t.Helper()
	cmd := exec.CommandContext(v.t.Context(), "bash", "-euc", script)
	cmd.Dir = v.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		v.t.Fatalf("%v\n%s\n%s", err, script, out)
	}
	return string(out)
}
