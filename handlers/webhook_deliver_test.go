package handlers_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bellhop-dev/bellhop/endpoints"
	"github.com/bellhop-dev/bellhop/handlers"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

// While secrets are rotated, receivers that know any of them verify; and the id is the job's, whatever the attempt.
func TestWebhookSigns(t *testing.T) {
	t.Parallel()
	var got []received
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = append(got, receive(r))
		w.WriteHeader(map[bool]int{true: 500, false: 202}[len(got) < 3])
	})
	cfg := shop(s.URL + "/hooks?x=1")
	cfg.UserAgent = "test/1"
	cfg.Endpoints[0].Secrets = []string{secretA, secretB, secretC}
	cfg.Endpoints[0].Headers = map[string]string{"x-api-key": "k"}
	h := newHooks(t, cfg)
	trace := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for attempt := 1; attempt <= 3; attempt++ {
		j := &job.Job{ID: "job.1", Queue: "q", Attempt: attempt, Headers: map[string]string{"traceparent": trace}}
		err := h.deliver(j, toShop())
		if attempt < 3 {
			wantRetry(t, err, "endpoint shop ("+s.URL+"): answered 500")
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		var result tasks.WebhookDelivered
		if err := json.Unmarshal(j.Result(), &result); err != nil || result.Status != 202 || result.Endpoint != "shop" || result.Message != got[0].Header.Get("Webhook-Id") {
			t.Errorf("result %s, %v", j.Result(), err)
		}
	}
	for i, r := range got {
		for _, secret := range []string{secretA, secretB, secretC} {
			if err := r.verify(secret); err != nil {
				t.Errorf("attempt %d: %v", i+1, err)
			}
		}
		if err := r.verify("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWI="); err == nil {
			t.Error("a foreign secret verifies")
		}
		if id := r.Header.Get("Webhook-Id"); id != got[0].Header.Get("Webhook-Id") || strings.ContainsAny(id, ". ") {
			t.Errorf("attempt %d has the id %q, the first %q", i+1, id, got[0].Header.Get("Webhook-Id"))
		}
		if r.Body != compact(t, orderPaid) {
			t.Errorf("the event became %s", r.Body)
		}
		for name, want := range map[string]string{
			"Content-Type": "application/cloudevents+json", "User-Agent": "test/1", "X-Api-Key": "k", "Traceparent": trace,
		} {
			if r.Header.Get(name) != want {
				t.Errorf("%s is %q, want %q", name, r.Header.Get(name), want)
			}
		}
	}
	if err := h.deliver(&job.Job{ID: "job.1", Queue: "other"}, toShop()); err != nil {
		t.Fatal(err)
	}
	if got[3].Header.Get("Webhook-Id") == got[0].Header.Get("Webhook-Id") {
		t.Error("jobs of two queues have one webhook-id")
	}
}

// compact is what a payload's JSON becomes when it is enqueued: json.Marshal leaves out the spaces and escapes <, > and &.
func compact(t *testing.T, text string) string {
	t.Helper()
	out, err := json.Marshal(json.RawMessage(text))
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// Files of secrets are read with each delivery: rotating needs no restart.
func TestWebhookSecretsFiles(t *testing.T) {
	t.Parallel()
	var got received
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) { got = receive(r) })
	file := filepath.Join(t.TempDir(), "secrets")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(secretB + "\n")
	cfg := shop(s.URL)
	cfg.Endpoints[0].Secrets, cfg.Endpoints[0].SecretsFiles = nil, []string{file}
	h := newHooks(t, cfg)
	for _, secrets := range [][]string{{secretB}, {secretC, secretB}, {secretC}} {
		write("\n" + strings.Join(secrets, "\r\n") + "\n\n")
		if err := h.deliver(&job.Job{ID: "j"}, toShop()); err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{secretB, secretC} {
			if err := got.verify(secret); (err == nil) != slices.Contains(secrets, secret) {
				t.Errorf("with %d secrets: %v", len(secrets), err)
			}
		}
	}
	for _, text := range []string{"", "canary", secretB + "\n" + "whsec_canary", strings.Repeat(secretB+"\n", 9)} {
		write(text)
		err := h.deliver(&job.Job{ID: "j"}, toShop())
		wantRetry(t, err, "secrets")
		if strings.Contains(err.Error(), "canary") {
			t.Error(err)
		}
		if _, err := handlers.NewWebhooks(cfg, handlers.Deps{}); err == nil || !strings.Contains(err.Error(), "endpoint shop: secrets") {
			t.Errorf("the start: %v", err)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	wantRetry(t, h.deliver(&job.Job{ID: "j"}, toShop()), "can't be read: no such file")
}

func TestWebhookContent(t *testing.T) {
	t.Parallel()
	var got received
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) { got = receive(r) })
	cfg := shop(s.URL)
	cfg.Endpoints = append(cfg.Endpoints, handlers.WebhookEndpoint{Name: "data", URL: s.URL, Secrets: []string{secretA}, Send: "data"})
	h := newHooks(t, cfg)
	binary := `{"specversion":"1.0","id":"e 2","source":"/ü","type":"t","datacontenttype":"image/png","data_base64":"iVBORw0="}`
	for name, test := range map[string]struct {
		payload tasks.WebhookDelivery
		body    string
		headers map[string]string
	}{
		"event": {toShop(), compact(t, orderPaid), map[string]string{"Content-Type": "application/cloudevents+json", "Ce-Id": ""}},
		"data": {
			tasks.WebhookDelivery{Endpoint: "shop", Event: json.RawMessage(orderPaid), Send: "data"},
			compact(t, `{"id":12345678901234567890,"note":"<b>ü</b>"}`),
			map[string]string{
				"Content-Type": "application/json", "Ce-Specversion": "1.0", "Ce-Id": "e-1", "Ce-Source": "/shop", "Ce-Type": "com.acme.order.paid",
				"Ce-Subject": "o-7", "Ce-Time": "2026-01-02T03:04:05Z", "Ce-Tenant": "acme",
			},
		},
		"the endpoint's own way": {
			tasks.WebhookDelivery{Endpoint: "data", Event: json.RawMessage(binary)},
			"\x89PNG\r",
			map[string]string{"Content-Type": "image/png", "Ce-Id": "e 2", "Ce-Source": "/%C3%BC"},
		},
		"instead of it": {tasks.WebhookDelivery{Endpoint: "data", Event: json.RawMessage(orderPaid), Send: "event"}, compact(t, orderPaid), nil},
		"no data": {
			tasks.WebhookDelivery{Endpoint: "data", Event: json.RawMessage(`{"specversion":"1.0","id":"1","source":"/","type":"t"}`)},
			"",
			map[string]string{"Content-Type": "", "Ce-Type": "t"},
		},
		"json": {
			tasks.WebhookDelivery{Endpoint: "shop", JSON: json.RawMessage(`{"n":1.10,"i":98765432109876543210}`)},
			`{"n":1.10,"i":98765432109876543210}`,
			map[string]string{"Content-Type": "application/json", "Ce-Id": ""},
		},
	} {
		got = received{}
		if err := h.deliver(&job.Job{ID: name}, test.payload); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(test.body, got.Body); diff != "" {
			t.Errorf("%s: body (-want +got):\n%s", name, diff)
		}
		for header, want := range test.headers {
			if got.Header.Get(header) != want {
				t.Errorf("%s: %s is %q, want %q", name, header, got.Header.Get(header), want)
			}
		}
		if err := got.verify(secretA); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWebhookStatusDecides(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		status, err := strconv.Atoi(r.URL.Path[1:])
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Location", "/200")
		w.WriteHeader(status)
	})
	cfg := handlers.WebhookConfig{Allow: allowLoopback.Allow, Config: endpoints.Config{Failures: 100}}
	statuses := []int{200, 201, 204, 299, 301, 302, 303, 307, 308, 304, 400, 401, 403, 404, 405, 408, 409, 413, 418, 422, 425, 429, 451, 500, 501, 502, 503, 504, 599}
	for _, status := range statuses {
		cfg.Endpoints = append(cfg.Endpoints, handlers.WebhookEndpoint{Name: strconv.Itoa(status), URL: s.URL + "/" + strconv.Itoa(status), Secrets: []string{secretA}})
	}
	h := newHooks(t, cfg)
	for _, status := range statuses {
		err := h.deliver(&job.Job{ID: "j"}, tasks.WebhookDelivery{Endpoint: strconv.Itoa(status), JSON: 1})
		state := h.endpoint(strconv.Itoa(status))
		switch {
		case status < 300:
			if err != nil || state.Delivered != 1 || state.Failures != 0 {
				t.Errorf("%d: %v, state %+v", status, err, state)
			}
		default:
			wantRetry(t, err, "answered "+strconv.Itoa(status))
			if errors.As(err, new(*job.RetryError)) || state.Failures != 1 || state.Running != 0 {
				t.Errorf("%d: %v, state %+v", status, err, state)
			}
			if status/100 == 3 {
				wantText(t, err, "redirects are not followed")
			}
		}
	}
	if n := int(calls.Load()); n != len(statuses) {
		t.Errorf("%d calls for %d deliveries", n, len(statuses))
	}
}

// A 410 ends the job and every other one of the endpoint, until somebody enables it.
func TestWebhookGone(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if calls.Add(1) == 1 {
			w.WriteHeader(http.StatusGone)
		}
	})
	h := newHooks(t, shop(s.URL))
	wantDiscard(t, h.deliver(&job.Job{ID: "j-1"}, toShop()), "answered 410 Gone", "switched off")
	wantDiscard(t, h.deliver(&job.Job{ID: "j-2"}, toShop()), "is switched off: it answered 410 Gone to job j-1", "enable it")
	if n := calls.Load(); n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
	if state := h.endpoint("shop"); state.Status != endpoints.StatusDisabled || state.Label != s.URL {
		t.Errorf("state %+v", state)
	}
	if _, err := h.state.Enable(t.Context(), "shop"); err != nil {
		t.Fatal(err)
	}
	if err := h.deliver(&job.Job{ID: "j-2"}, toShop()); err != nil {
		t.Error(err)
	}
	if !strings.Contains(h.log.String(), `"msg":"webhook endpoint switched off, it wants no more","endpoint":"shop"`) {
		t.Errorf("log %s", h.log)
	}
}

func TestWebhookRetryAfter(t *testing.T) {
	t.Parallel()
	status := 0
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "1200")
		w.WriteHeader(status)
	})
	for _, test := range []struct {
		status, attempt int
		least, most     time.Duration
		pause           bool
	}{
		{429, 1, 20 * time.Minute, 20 * time.Minute, true},
		{503, 2, 20 * time.Minute, 20 * time.Minute, true},
		{503, 4, 2 * time.Hour, 132 * time.Minute, true}, // never sooner than without the header
		{500, 1, 20 * time.Minute, 20 * time.Minute, false},
		{413, 1, 20 * time.Minute, 20 * time.Minute, false},
	} {
		status = test.status
		h := newHooks(t, shop(s.URL))
		err := h.deliver(&job.Job{ID: "j", Attempt: test.attempt}, toShop())
		wantRetry(t, err)
		var retry *job.RetryError
		if !errors.As(err, &retry) || retry.In < test.least || retry.In > test.most {
			t.Errorf("%d, attempt %d: %#v, want %v to %v", test.status, test.attempt, err, test.least, test.most)
		}
		err = h.deliver(&job.Job{ID: "other"}, toShop())
		if job.IsSnooze(err) != test.pause {
			t.Errorf("%d: the next job got %v, want it put off: %v", test.status, err, test.pause)
		}
	}
}

func TestWebhookAttemptsAreKept(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		n := calls.Add(1)
		if n == 2 {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(map[int32]int{1: 500, 3: 200}[n])
		answer(w, strings.Repeat("é", 1000))
	})
	cfg := shop(s.URL)
	h := newHooks(t, cfg)
	before := time.Now().Truncate(time.Millisecond)
	for attempt := 1; attempt <= 3; attempt++ {
		_ = h.deliver(&job.Job{ID: "j-1", Queue: "q", Attempt: attempt}, toShop())
	}
	list := h.attempts("shop")
	if len(list) != 3 {
		t.Fatalf("%d attempts are kept: %+v", len(list), list)
	}
	for i, a := range list {
		if a.Job != "j-1" || a.Queue != "q" || a.Number != 3-i || !strings.HasPrefix(a.Message, "msg_") || a.At.Before(before) || a.DurationMS < 0 {
			t.Errorf("attempt %+v", a)
		}
		if want := []int{200, 0, 500}[i]; a.Status != want || (a.Error == "") != (want > 0) {
			t.Errorf("attempt %+v, want status %d", a, want)
		}
		if a.Status > 0 && (!strings.HasPrefix(a.Answer, "ééé") || len(a.Answer) > 520) {
			t.Errorf("kept %d bytes of the answer: %s", len(a.Answer), a.Answer)
		}
	}
}

func TestWebhookTimeoutsAndStops(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		receive(r)
		if strings.HasSuffix(r.URL.Path, "body") {
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done()
	})
	cfg := shop(s.URL)
	cfg.Timeout = 100 * time.Millisecond
	cfg.Endpoints = append(cfg.Endpoints, handlers.WebhookEndpoint{Name: "body", URL: s.URL + "/body", Secrets: []string{secretA}, Timeout: 80 * time.Millisecond})
	h := newHooks(t, cfg)
	wantRetry(t, h.deliver(&job.Job{ID: "j"}, toShop()), "no whole answer within")
	if state := h.endpoint("shop"); state.Failures != 1 || state.Running != 0 {
		t.Errorf("state %+v", state)
	}
	// A 2xx is a 2xx, even if its body never ends.
	if err := h.deliver(&job.Job{ID: "j"}, tasks.WebhookDelivery{Endpoint: "body", JSON: 1}); err != nil {
		t.Error(err)
	}

	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := h.deliverIn(ctx, &job.Job{ID: "j"}, toShop()); !errors.Is(err, context.Canceled) {
		t.Errorf("a stopped job: %v", err)
	}
	if state := h.endpoint("shop"); state.Failures != 1 || state.Running != 0 {
		t.Errorf("a stopped job counts against the endpoint: %+v", state)
	}
}

// Without Redis nobody knows whether the endpoint may be called: the job waits, and spends nothing.
func TestWebhookStateAway(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	s := serve(t, func(http.ResponseWriter, *http.Request) { calls.Add(1) })
	h := newHooks(t, shop(s.URL))
	if err := h.rdb.Close(); err != nil {
		t.Fatal(err)
	}
	if err := h.deliver(&job.Job{ID: "j"}, toShop()); !job.IsSnooze(err) || calls.Load() != 0 {
		t.Errorf("got %v after %d calls", err, calls.Load())
	}
	if !strings.Contains(h.log.String(), "the endpoint's state is unknown") {
		t.Errorf("log %s", h.log)
	}
}

func TestWebhookRefusesPayloadsThatCannotWork(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	s := serve(t, func(http.ResponseWriter, *http.Request) { calls.Add(1) })
	cfg := shop(s.URL)
	cfg.Endpoints = append(cfg.Endpoints, handlers.WebhookEndpoint{Name: "off", URL: s.URL, Secrets: []string{secretA}, Disabled: true})
	cfg.Signers = []handlers.WebhookSigner{{Name: "partner", Hosts: []string{"127.0.0.1:1", "*.example.com", "hooks.example.org:8443"}, Secrets: []string{secretB}}}
	h := newHooks(t, cfg)
	event := json.RawMessage(orderPaid)
	for name, test := range map[string]struct {
		payload tasks.WebhookDelivery
		part    string
	}{
		"nothing":          {tasks.WebhookDelivery{}, "neither endpoint nor url"},
		"both":             {tasks.WebhookDelivery{Endpoint: "shop", URL: s.URL, JSON: 1}, "endpoint and url are both given"},
		"no signer":        {tasks.WebhookDelivery{URL: s.URL, JSON: 1}, "signer: is not given"},
		"scheme":           {tasks.WebhookDelivery{URL: "file:///etc/passwd", Signer: "partner", JSON: 1}, "it must begin with http"},
		"another host":     {tasks.WebhookDelivery{URL: s.URL, Signer: "partner", JSON: 1}, "does not sign for"},
		"above its hosts":  {tasks.WebhookDelivery{URL: "https://example.com/", Signer: "partner", JSON: 1}, "does not sign for"},
		"another port":     {tasks.WebhookDelivery{URL: "https://hooks.example.org/", Signer: "partner", JSON: 1}, "does not sign for"},
		"ends alike":       {tasks.WebhookDelivery{URL: "https://evilexample.com/", Signer: "partner", JSON: 1}, "does not sign for"},
		"as user":          {tasks.WebhookDelivery{URL: "https://a.example.com@evil.test/", Signer: "partner", JSON: 1}, "does not sign for"},
		"off":              {tasks.WebhookDelivery{Endpoint: "off", JSON: 1}, "is disabled in handlers.webhooks.endpoints"},
		"no body":          {tasks.WebhookDelivery{Endpoint: "shop"}, "nothing to send"},
		"two bodies":       {tasks.WebhookDelivery{Endpoint: "shop", Event: event, JSON: 1}, "event and json are both given"},
		"no event":         {tasks.WebhookDelivery{Endpoint: "shop", Event: json.RawMessage(`{"id":"1"}`)}, "event: "},
		"event is a text":  {tasks.WebhookDelivery{Endpoint: "shop", Event: "x"}, "event: "},
		"send":             {tasks.WebhookDelivery{Endpoint: "shop", Event: event, Send: "all"}, "send: "},
		"numeric host":     {tasks.WebhookDelivery{URL: "http://2130706433/", Signer: "partner", JSON: 1}, "a number that is no plain IP address"},
		"host with a port": {tasks.WebhookDelivery{URL: "http://127.0.0.1:2/", Signer: "partner", JSON: 1}, "does not sign for"},
	} {
		err := h.deliver(&job.Job{ID: "j"}, test.payload)
		if !job.IsDiscard(err) || !strings.Contains(err.Error(), test.part) {
			t.Errorf("%s: got %v, want a discard with %q", name, err, test.part)
		}
	}
	for _, p := range []tasks.WebhookDelivery{{Endpoint: "shops", JSON: 1}, {URL: s.URL, Signer: "partners", JSON: 1}} {
		wantRetry(t, h.deliver(&job.Job{ID: "j"}, p), "of this worker: it has ") // another one may know it
	}
	if n := calls.Load(); n != 0 {
		t.Errorf("%d calls were made", n)
	}
}

// A job may bring its own address, if a signer is there for it. Its state is kept under a name of its own.
func TestWebhookToURL(t *testing.T) {
	t.Parallel()
	var got received
	status := http.StatusInternalServerError
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = receive(r)
		w.WriteHeader(status)
	})
	h := newHooks(t, handlers.WebhookConfig{
		Allow:   allowLoopback.Allow,
		Signers: []handlers.WebhookSigner{{Name: "partner", Hosts: []string{s.Listener.Addr().String()}, Secrets: []string{secretB}}},
	})
	p := tasks.WebhookDelivery{URL: s.URL + "/canary-path", Signer: "partner", Event: json.RawMessage(orderPaid)}
	wantRetry(t, h.deliver(&job.Job{ID: "j"}, p), "url ("+s.URL+"): answered 500")
	if err := got.verify(secretB); err != nil {
		t.Error(err)
	}
	status = http.StatusOK
	if err := h.deliver(&job.Job{ID: "j"}, p); err != nil {
		t.Error(err)
	}
	list, err := h.state.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Label != s.URL || !strings.HasPrefix(list[0].Endpoint, "url:") || list[0].Delivered != 1 || list[0].Failed != 1 {
		t.Errorf("state %+v, %v", list, err)
	}
}
