package handlers_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/bellhop-dev/bellhop/endpoints"
	"github.com/bellhop-dev/bellhop/handlers"
	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

// Secrets of the tests: the base64 of 32 bytes, of 24 and of 64.
const (
	secretA = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	secretB = "whsec_Y2FuYXJ5LXNlY3JldC1iLWJiYmJiYmJiYmJiYmJiYmI="
	secretC = "whsec_Y2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjYw=="
)

const orderPaid = `{"specversion":"1.0","id":"e-1","source":"/shop","type":"com.acme.order.paid","subject":"o-7",` +
	`"time":"2026-01-02T03:04:05Z","tenant":"acme","data":{"id":12345678901234567890, "note":"<b>ü</b>"}}`

// hooks is a handler with its state in a Redis of its own.
type hooks struct {
	*testing.T
	*handlers.Webhooks
	rdb   redis.UniversalClient
	state *endpoints.Client
	log   *lockedBuffer
}

func newHooks(t *testing.T, cfg handlers.WebhookConfig) *hooks {
	t.Helper()
	rdb := redistest.Embedded(t)
	state, err := endpoints.New(rdb, cfg.Config)
	if err != nil {
		t.Fatal(err)
	}
	log := new(lockedBuffer)
	w, err := handlers.NewWebhooks(cfg, handlers.Deps{Jobs: job.NewClient(rdb), Endpoints: state, Logger: slog.New(slog.NewJSONHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return &hooks{T: t, Webhooks: w, rdb: rdb, state: state, log: log}
}

// shop is an endpoint of the test's server.
func shop(url string) handlers.WebhookConfig {
	return handlers.WebhookConfig{
		Endpoints: []handlers.WebhookEndpoint{{Name: "shop", URL: url, Secrets: []string{secretA}}},
		Allow:     allowLoopback.Allow,
	}
}

// deliver runs one attempt, as a worker does: through the route, with the payload as JSON.
func (h *hooks) deliver(j *job.Job, p tasks.WebhookDelivery) error {
	h.Helper()
	return h.deliverIn(h.Context(), j, p)
}

func (h *hooks) deliverIn(ctx context.Context, j *job.Job, p tasks.WebhookDelivery) error {
	h.Helper()
	data, err := json.Marshal(p)
	if err != nil {
		h.Fatal(err)
	}
	if err := tasks.DeliverWebhook.Definition().Schema.Check(data); err != nil {
		h.Fatalf("payload %s: %v", data, err)
	}
	j.Payload = data
	if j.Attempt == 0 {
		j.Attempt = 1
	}
	return tasks.DeliverWebhook.HandledBy(h.Deliver).Handle(job.NewContext(ctx, j), j)
}

func (h *hooks) attempts(endpoint string) []endpoints.Attempt {
	h.Helper()
	list, err := h.state.Attempts(h.Context(), endpoint, 0)
	if err != nil {
		h.Fatal(err)
	}
	return list
}

func (h *hooks) endpoint(name string) endpoints.State {
	h.Helper()
	s, err := h.state.State(h.Context(), name)
	if err != nil {
		h.Fatal(err)
	}
	return s
}

func toShop() tasks.WebhookDelivery {
	return tasks.WebhookDelivery{Endpoint: "shop", Event: json.RawMessage(orderPaid)}
}

// received is what a receiver got.
type received struct {
	Header http.Header
	Body   string
}

func receive(r *http.Request) received {
	body, _ := io.ReadAll(r.Body)
	return received{r.Header.Clone(), string(body)}
}

// verify is what receivers do.
func (r received) verify(secret string) error {
	wh, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return errors.New("no secret")
	}
	return wh.Verify([]byte(r.Body), r.Header)
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
