package webhook_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/sources/webhook"
)

// The secrets of the tests; the old one is being rotated out.
const (
	secret    = "a secret of sixteen bytes and more"
	oldSecret = "the secret that was used until now"
	whsec     = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	oldWhsec  = "whsec_b2xkIHNlY3JldCBvZiBhIHN0YW5kYXJk"
)

// noon is when everything happens.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// bundle is a receiver with all that is around it.
type bundle struct {
	testing.TB
	rdb      redis.UniversalClient
	events   *events.Client
	receiver *webhook.Receiver
	log      *lockedBuffer
	mux      *http.ServeMux

	mu      sync.Mutex
	answers []webhook.Answer
}

func (b *bundle) HookAnswered(a webhook.Answer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answers = append(b.answers, a)
}

func (b *bundle) last() webhook.Answer {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.answers) == 0 {
		return webhook.Answer{}
	}
	return b.answers[len(b.answers)-1]
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func setup(t testing.TB, hooks ...webhook.Hook) *bundle {
	t.Helper()
	return setupWith(t, redistest.New(t), events.Config{}, hooks...)
}

func setupWith(t testing.TB, rdb redis.UniversalClient, cfg events.Config, hooks ...webhook.Hook) *bundle {
	t.Helper()
	client, err := events.NewClient(rdb, cfg)
	if err != nil {
		t.Fatal(err)
	}
	b := &bundle{TB: t, rdb: rdb, events: client, log: new(lockedBuffer), mux: http.NewServeMux()}
	log := slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if b.receiver, err = webhook.New(hooks, client, log, b); err != nil {
		t.Fatal(err)
	}
	b.receiver.SetClock(func() time.Time { return noon })
	b.mux.Handle("/hooks/{name}", b.receiver)
	return b
}

// request is what a provider posts.
type request struct {
	hook   string
	header map[string]string
	body   string
}

func (r request) with(name, value string) request {
	header := make(map[string]string, len(r.header)+1)
	maps.Copy(header, r.header)
	header[name] = value
	r.header = header
	return r
}

func (r request) without(name string) request {
	r = r.with(name, "")
	delete(r.header, name)
	return r
}

func (r request) to(hook string) request { r.hook = hook; return r }

func (r request) carrying(body string) request { r.body = body; return r }

func (r request) http() *http.Request {
	req := httptest.NewRequest(http.MethodPost, "/hooks/"+r.hook, strings.NewReader(r.body))
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	return req
}

// post wants the status and the outcome.
func (b *bundle) post(r request, status int, outcome webhook.Outcome) *httptest.ResponseRecorder {
	b.Helper()
	return b.serve(r.http(), status, outcome)
}

func (b *bundle) serve(req *http.Request, status int, outcome webhook.Outcome) *httptest.ResponseRecorder {
	b.Helper()
	w := httptest.NewRecorder()
	b.mux.ServeHTTP(w, req)
	if got := b.last(); w.Code != status || got.Outcome != outcome || got.Status != status {
		b.Errorf("%s %s: status %d, outcome %q (told %d), want %d, %q\nbody: %s\nlog: %s", req.Method, req.URL, w.Code, got.Outcome, got.Status, status, outcome, w.Body, b.log)
	}
	return w
}

// stored are all events on the stream, oldest first.
func (b *bundle) stored() []*events.Event {
	b.Helper()
	entries, _, err := b.events.Range(b.Context(), "", 1000)
	if err != nil {
		b.Fatal(err)
	}
	all := make([]*events.Event, len(entries))
	for i, e := range entries {
		if e.Err != nil {
			b.Fatal(e.Err)
		}
		all[i] = e.Event
	}
	return all
}

func (b *bundle) wantStored(n int) []*events.Event {
	b.Helper()
	all := b.stored()
	if len(all) != n {
		b.Fatalf("%d events are stored, want %d\nlog: %s", len(all), n, b.log)
	}
	return all
}

func sha256Hex(secret, text string) string {
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte(text))
	return hex.EncodeToString(h.Sum(nil))
}

// The senders sign as the providers do.

func github(key, event, id, body string) request {
	return request{hook: "github", body: body, header: map[string]string{
		"Content-Type": "application/json", "X-GitHub-Event": event, "X-GitHub-Delivery": id, "X-Hub-Signature-256": "sha256=" + sha256Hex(key, body),
	}}
}

func slack(key string, at time.Time, contentType, body string) request {
	stamp := strconv.FormatInt(at.Unix(), 10)
	return request{hook: "slack", body: body, header: map[string]string{
		"Content-Type": contentType, "X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": "v0=" + sha256Hex(key, "v0:"+stamp+":"+body),
	}}
}

func stripe(key string, at time.Time, body string) request {
	stamp := strconv.FormatInt(at.Unix(), 10)
	return request{hook: "stripe", body: body, header: map[string]string{
		"Content-Type": "application/json; charset=utf-8", "Stripe-Signature": "t=" + stamp + ",v1=" + sha256Hex(key, stamp+"."+body) + ",v0=" + sha256Hex("test", body),
	}}
}

// standard signs with the library of those who wrote the standard.
func standard(t testing.TB, key, id string, at time.Time, body string) request {
	t.Helper()
	signer, err := standardwebhooks.NewWebhook(key)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := signer.Sign(id, at, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return request{hook: "standard", body: body, header: map[string]string{
		"Content-Type": "application/json", "Webhook-Id": id, "Webhook-Timestamp": strconv.FormatInt(at.Unix(), 10), "Webhook-Signature": signature,
	}}
}

func custom(key, id string, at time.Time, body string) request {
	stamp := strconv.FormatInt(at.Unix(), 10)
	return request{hook: "hmac", body: body, header: map[string]string{
		"Content-Type": "application/json", "X-Sent": stamp, "X-Id": id, "X-Topic": "orders/create", "X-Sign": "sha256=" + sha256Hex(key, id+"."+stamp+"."+body),
	}}
}

// everyKind is one hook of each, with two secrets.
func everyKind() []webhook.Hook {
	both := []string{secret, oldSecret}
	return []webhook.Hook{
		{Name: "github", Kind: webhook.GitHub, Secrets: both},
		{Name: "slack", Kind: webhook.Slack, Secrets: both},
		{Name: "stripe", Kind: webhook.Stripe, Secrets: both},
		{Name: "standard", Kind: webhook.Standard, Secrets: []string{whsec, oldWhsec}, TypePrefix: "com.acme"},
		{
			Name: "hmac", Kind: webhook.HMAC, Secrets: both, TypePrefix: "com.shop",
			Signature: webhook.Signature{Header: "X-Sign", Prefix: "sha256=", TimestampHeader: "X-Sent", Signed: "{id}.{timestamp}.{body}"},
			Event:     webhook.Mapping{IDHeader: "X-Id", TypeHeader: "X-Topic", SubjectPath: "order.id", TimePath: "at"},
		},
		{Name: "token", Kind: webhook.Token, Secrets: both, Signature: webhook.Signature{Header: "X-Gitlab-Token"}, Event: webhook.Mapping{IDHeader: "X-Gitlab-Event-UUID", TypePath: "object_kind"}},
		{Name: "open", Kind: webhook.None, InsecureUnsigned: true},
	}
}
