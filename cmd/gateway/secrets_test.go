package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/redistest"
)

// Secrets of the configuration, of URLs, headers and bodies stand in no log, in no error, in no metric and not in what
// --print-config prints: of a whole process, at the level debug.
func TestNoSecretIsTold(t *testing.T) {
	t.Parallel()
	const (
		password = "cAnArYpassword" // of Redis
		hook     = "cAnArYhooksecret"
		sent     = "cAnArYsent" // by clients
		canary   = "cAnArY"
	)
	server := redistest.Start(t, redistest.WithPassword(password))
	addr, private := freeAddr(t), freeAddr(t)
	file := filepath.Join(t.TempDir(), "bellhop.yaml")
	text := fmt.Sprintf(`log: {format: json, level: debug}
redis: {url: %q}
gateway: {addr: %q, private_addr: %q}
hooks: [{name: github, kind: github, secrets: [%s]}, {name: shop, kind: hmac, signature: {header: X-Signature}, secrets: [%s]}]
`, server.URL(), addr, private, hook, hook)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	told := func(where, what string) {
		t.Helper()
		for line := range strings.Lines(what) {
			if strings.Contains(line, canary) {
				t.Errorf("%s: %s", where, line)
			}
		}
	}
	for _, form := range []string{"--print-config", "--print-config --json"} {
		code, out, log := start(t, append(strings.Fields(form), "--config", file)...).wait()
		if code != 0 || !strings.Contains(out, "github") {
			t.Fatalf("%s: %d %s %s", form, code, out, log)
		}
		told(form, out+log)
	}

	client := &http.Client{Timeout: limit, Transport: &http.Transport{DisableKeepAlives: true}}
	gateway := start(t, "--config", file)
	eventually(t, "it is ready", ok(client, "http://"+private+"/readyz"))
	token, _, err := keys.NewStore(server.Client(), keys.Config{}).Create(t.Context(), keys.Key{Name: "n", Scopes: []keys.Scope{keys.Publish, keys.Enqueue}})
	if err != nil {
		t.Fatal(err)
	}
	statuses := make(map[int]int)
	send := func(method, path, authorization, body string, headers ...string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range append(headers, "Cookie: s="+sent, "X-Secret: "+sent, "User-Agent: "+sent, "Referer: http://x/"+sent, "X-Hub-Signature-256: sha256="+sent) {
			name, value, _ := strings.Cut(h, ": ")
			req.Header.Set(name, value)
		}
		if authorization != "" {
			req.Header.Set("Authorization", authorization)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		statuses[resp.StatusCode]++
		if resp.StatusCode >= 400 {
			told(method+" "+path, fmt.Sprint(string(answer), resp.Header))
		}
	}
	event := `{"specversion":"1.0","id":"` + sent + `","type":"a.b","source":"/x","data":{"password":"` + sent + `"}}`
	for _, authorization := range []string{"", "Bearer " + token, "Bearer bh_" + sent, "Basic " + sent, "Bearer " + token[:len(token)-8] + "aaaaaaaa"} {
		for _, query := range []string{"", "?key=" + sent} {
			send("POST", "/v1/events"+query, authorization, event, "Content-Type: application/cloudevents+json")
			send("POST", "/v1/events"+query, authorization, `{"specversion":"0.3","data":"`+sent+`"}`, "Content-Type: application/cloudevents+json")
			send("POST", "/v1/events"+query, authorization, sent, "Content-Type: application/cloudevents+json", "Content-Encoding: gzip")
			send("POST", "/v1/jobs"+query, authorization, `{"task":"http:request","payload":{"url":7,"headers":{"Authorization":"`+sent+`"}}}`, "Content-Type: application/json")
			send("POST", "/v1/jobs"+query, authorization, `{"task":"log:write","payload":{"message":"`+sent+`"}}`, "Content-Type: application/json", "Idempotency-Key: "+sent)
			send("POST", "/hooks/github"+query, authorization, `{"secret":"`+sent+`"}`, "Content-Type: application/json")
			send("POST", "/hooks/shop"+query, authorization, sent)
			send("POST", "/hooks/"+sent+query, authorization, sent)
			send("GET", "/"+sent+query, authorization, "")
		}
	}
	for _, status := range []int{200, 201, 400, 401, 404, 422} {
		if statuses[status] == 0 {
			t.Errorf("no answer of %d: %v", status, statuses)
		}
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+private+"/metrics", nil)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	metrics, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	told("/metrics", string(metrics))
	for _, line := range []string{
		`bellhop_events_total{outcome="published"} 1`, `bellhop_http_rejected_total{reason="auth"} `, `bellhop_hooks_total{hook="github",outcome="bad_signature"} `,
		`bellhop_http_requests_total{method="POST",route="/v1/events",status="2xx"} `, `bellhop_streams_open 0`,
	} {
		if !strings.Contains(string(metrics), "\n"+line) {
			t.Errorf("metrics: no %s", line)
		}
	}

	gateway.stop()
	code, out, log := gateway.wait()
	if code != 0 || !strings.Contains(log, `"msg":"request"`) {
		t.Errorf("%d: %.500s", code, log)
	}
	told("the log", out+log)
	if strings.Contains(log+string(metrics), token[16:]) {
		t.Error("the key was told")
	}
}
