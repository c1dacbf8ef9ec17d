package handlers_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bellhop-dev/bellhop/endpoints"
	"github.com/bellhop-dev/bellhop/handlers"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

// Neither an operator's slip nor whoever may enqueue jobs makes a worker call into its own network.
func TestWebhookRefusesPrivateAddresses(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	s := serve(t, func(http.ResponseWriter, *http.Request) { calls.Add(1) })
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	cfg := handlers.WebhookConfig{Signers: []handlers.WebhookSigner{{
		Name: "all", Hosts: []string{"0.0.0.0/0", "::/0", "localhost"}, Secrets: []string{secretA},
	}}}
	for i, host := range privateHosts {
		cfg.Endpoints = append(cfg.Endpoints, handlers.WebhookEndpoint{Name: fmt.Sprint(i), URL: "http://" + host + ":" + port, Secrets: []string{secretA}})
	}
	h := newHooks(t, cfg)
	for i, host := range privateHosts {
		err := h.deliver(&job.Job{ID: "j"}, tasks.WebhookDelivery{Endpoint: fmt.Sprint(i), JSON: 1})
		wantDiscard(t, err, "is a private, local or reserved address", ":"+port+`" to handlers.webhooks.allow`)
		err = h.deliver(&job.Job{ID: "j"}, tasks.WebhookDelivery{URL: "http://" + host + ":" + port, Signer: "all", JSON: 1})
		if !job.IsDiscard(err) {
			t.Errorf("%s: %v", host, err)
		}
		if list := h.attempts(fmt.Sprint(i)); len(list) != 1 || !strings.Contains(list[0].Error, "private") {
			t.Errorf("%s: attempts %+v", host, list)
		}
	}
	for _, host := range numericHosts {
		cfg := shop("http://" + host + "/")
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "a number that is no plain IP address") {
			t.Errorf("endpoint at %s: %v", host, err)
		}
		err := h.deliver(&job.Job{ID: "j"}, tasks.WebhookDelivery{URL: "http://" + host + ":" + port, Signer: "all", JSON: 1})
		wantDiscard(t, err, "a number that is no plain IP address")
	}
	if n := calls.Load(); n != 0 {
		t.Errorf("%d calls reached the loopback server", n)
	}
}

func TestWebhookFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	to := ""
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		http.Redirect(w, r, to, http.StatusTemporaryRedirect)
	})
	h := newHooks(t, shop(s.URL))
	for _, to = range []string{"/", s.URL + "/other", "http://169.254.169.254/latest", "http://[::ffff:169.254.169.254]/", "gopher://127.0.0.1/"} {
		calls.Store(0)
		if _, err := h.state.Enable(t.Context(), "shop"); err != nil {
			t.Fatal(err)
		}
		wantRetry(t, h.deliver(&job.Job{ID: "j"}, toShop()), "answered 307", "redirects are not followed")
		if n := calls.Load(); n != 1 {
			t.Errorf("to %s: %d calls", to, n)
		}
	}
}

// A proxy of the environment would dial for us, unguarded. t.Setenv forbids t.Parallel.
func TestWebhookTakesNoProxy(t *testing.T) { //nolint:paralleltest // see above
	var calls atomic.Int32
	proxy := serve(t, func(http.ResponseWriter, *http.Request) { calls.Add(1) })
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"} {
		t.Setenv(name, proxy.URL)
	}
	h := newHooks(t, shop("http://192.168.77.77/"))
	wantDiscard(t, h.deliver(&job.Job{ID: "j"}, toShop()), "is a private, local or reserved address")
	if calls.Load() != 0 {
		t.Error("the proxy was called")
	}
}

// Nothing of the payload, the secrets, the headers or the URL's path comes back in errors, logs, what is kept or results, even if the
// receiver sends all of it back.
func TestWebhookTellsNoSecrets(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex // an aborted call orders nothing
	var now, front int
	var signatures []string
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		signatures = append(signatures, strings.Fields(r.Header.Get("Webhook-Signature"))...)
		status, first := now, front
		mu.Unlock()
		if status == 0 {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Location", "http://"+r.Host+r.URL.String())
		w.WriteHeader(status)
		parts := []string{"Cannot " + r.Method + " " + r.URL.String(), r.Header.Get("Authorization"), r.Header.Get("X-Api-Key"), string(body), r.Header.Get("Webhook-Signature")}
		answer(w, strings.Join(append(parts[first:], parts[:first]...), "\n"))
	})
	url := strings.Replace(s.URL, "http://", "http://canary-user:canary-password@", 1) + "/canary-path?key=canary-query"
	secret := strings.TrimPrefix(secretB, "whsec_")
	event := json.RawMessage(`{"specversion":"1.0","id":"canary-id-1","source":"/canary-source","type":"t","data":{"token":"canary-json","deep":[{"a":"long canary-deep"}]}}`)
	for _, status := range []int{0, 200, 302, 403, 410, 429, 500} {
		for first := range 5 {
			mu.Lock()
			now, front = status, first
			mu.Unlock()
			cfg := shop(url)
			cfg.Endpoints[0].Secrets = []string{secretA, secretB}
			cfg.Endpoints[0].Headers = map[string]string{"x-api-key": "canary-key"}
			cfg.Failures = 1
			h := newHooks(t, cfg)
			j := &job.Job{ID: "j-1"}
			err := h.deliver(j, tasks.WebhookDelivery{Endpoint: "shop", Event: event})
			if (err == nil) != (status == 200) {
				t.Fatalf("%d: %v", status, err)
			}
			again := h.deliver(&job.Job{ID: "j-2"}, tasks.WebhookDelivery{Endpoint: "shop", Event: event}) // put off, or ended
			text := fmt.Sprint(err, again, h.log, string(j.Result()), dump(t, h))
			mu.Lock()
			words := slices.Clone(signatures)
			mu.Unlock()
			for _, word := range append(words, "canary", secret, "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY") {
				if strings.Contains(text, word) {
					t.Errorf("%d, %d: %q is told:\n%s", status, first, word, text)
				}
			}
			if !strings.Contains(text, s.URL) {
				t.Errorf("%d: the host is not told: %s", status, text)
			}
		}
	}
}

// dump is all that is in Redis of endpoints.
func dump(t *testing.T, h *hooks) string {
	t.Helper()
	keys, err := h.rdb.Keys(t.Context(), "bellhop:{endpoints}:*").Result()
	if err != nil || len(keys) < 3 {
		t.Fatalf("keys %v, %v", keys, err)
	}
	text := fmt.Sprint(keys)
	for _, key := range keys {
		text += fmt.Sprint(h.rdb.HGetAll(t.Context(), key).Val(), h.rdb.LRange(t.Context(), key, 0, -1).Val(), h.rdb.ZRange(t.Context(), key, 0, -1).Val())
	}
	return text
}

func TestWebhookConfigReportsEveryFault(t *testing.T) {
	t.Parallel()
	good := handlers.WebhookEndpoint{Name: "good", URL: "https://x.example", Secrets: []string{secretA}}
	cfg := handlers.Config{Webhooks: handlers.WebhookConfig{
		Endpoints: []handlers.WebhookEndpoint{
			good, good,
			{Name: "Bad Name", URL: "ftp://canary", Secrets: []string{"canary-1", "whsec_canary", "whsec_c2hvcnQ="}},
			{
				Name: "b", URL: "https://x.example", Events: []string{"a.**.b", "ok"}, Send: "all", Timeout: -1, Rate: -2,
				Headers: map[string]string{"webhook-id": "1", "a b": "canary", "content-type": "x", "x-ok": "y", "x": "canary\n"},
			},
		},
		Signers: []handlers.WebhookSigner{{Name: "good", Hosts: []string{"https://x"}, Secrets: []string{secretA}}, {Name: "n"}},
		Allow:   []string{"a b"}, Timeout: 2 * handlers.DefaultWebhookTimeout * 10, UserAgent: "a\nb",
		Config: endpoints.Config{Failures: -1, KeepAttempts: -1},
	}}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("no fault found")
	}
	if strings.Contains(err.Error(), "canary") {
		t.Errorf("secrets are told: %v", err)
	}
	var got []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		key, _, _ := strings.Cut(line, ": ")
		got = append(got, strings.TrimPrefix(key, "webhooks."))
	}
	want := []string{
		"allow[0]", "endpoints[1].name", "endpoints[2].url", "endpoints[2].secrets[0]", "endpoints[2].secrets[1]", "endpoints[2].secrets[2]", "endpoints[2].name",
		"endpoints[3].secrets", "endpoints[3].events[0]", "endpoints[3].send", "endpoints[3].headers", "endpoints[3].headers", "endpoints[3].headers", "endpoints[3].headers",
		"endpoints[3].timeout", "endpoints[3].rate", "signers[0].hosts[0]", "signers[1].hosts", "signers[1].secrets",
		"timeout", "user_agent", "failures", "keep_attempts",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("faults (-want +got):\n%s\n%v", diff, err)
	}
}
