package webhook_test

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/sources/webhook"
)

// TestVectors: what the providers' own documentation says is signed with what.
func TestVectors(t *testing.T) {
	t.Parallel()
	const slackForm = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
	for name, c := range map[string]struct {
		hook    webhook.Hook
		at      int64
		header  map[string]string
		body    string
		status  int
		outcome webhook.Outcome
	}{
		"GitHub": { // its text is no JSON: the signature holds, and the body is then refused
			hook: webhook.Hook{Kind: webhook.GitHub, Secrets: []string{"It's a Secret to Everybody"}},
			header: map[string]string{
				"X-GitHub-Event": "push", "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
				"X-Hub-Signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
			},
			body: "Hello, World!", status: http.StatusBadRequest, outcome: webhook.Malformed,
		},
		"Slack": {
			hook: webhook.Hook{Kind: webhook.Slack, Secrets: []string{"8f742231b10e8888abcd99yyyzzz85a5"}},
			at:   1531420618,
			header: map[string]string{
				"Content-Type": "application/x-www-form-urlencoded", "X-Slack-Request-Timestamp": "1531420618",
				"X-Slack-Signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
			},
			body: slackForm, status: http.StatusOK, outcome: webhook.Stored,
		},
		"Stripe": { // it publishes none: made with openssl dgst -sha256 -hmac
			hook:   webhook.Hook{Kind: webhook.Stripe, Secrets: []string{"whsec_test_secret_of_stripe"}},
			at:     1492774577,
			header: map[string]string{"Stripe-Signature": "t=1492774577,v1=2487a665b0ecf1d2d463404ca93fa3c8fde4b8f9dec1858688b2fa858cd36e16"},
			body:   `{"id":"evt_1","object":"event"}`, status: http.StatusBadRequest, outcome: webhook.Malformed, // no type
		},
		"Standard Webhooks": {
			hook: webhook.Hook{Kind: webhook.Standard, Secrets: []string{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}},
			at:   1614265330,
			header: map[string]string{
				"webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek", "webhook-timestamp": "1614265330",
				"webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
			},
			body: `{"test": 2432232314}`, status: http.StatusAccepted, outcome: webhook.Stored,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.hook.Name = "h"
			b := setup(t, c.hook)
			b.receiver.SetClock(func() time.Time { return time.Unix(c.at, 0) })
			r := request{hook: "h", header: c.header, body: c.body}
			b.post(r, c.status, c.outcome)
			b.post(r.carrying(c.body+" "), http.StatusUnauthorized, webhook.BadSignature)
		})
	}
}

// TestEvents: what each provider's deliveries become.
func TestEvents(t *testing.T) {
	t.Parallel()
	const form = "application/x-www-form-urlencoded"
	const jsonType = "application/json"
	type ext = map[string]any
	for name, c := range map[string]struct {
		send request
		want events.Event
	}{
		"a GitHub issue": {
			github(secret, "issues", "guid-1", `{"action":"opened","issue":{"number":7},"repository":{"html_url":"https://github.com/acme/shop"}}`).with("X-GitHub-Hook-ID", "42").with("X-GitHub-Hook-Installation-Target-Type", "repository").with("X-GitHub-Hook-Installation-Target-ID", "79929171"),
			events.Event{
				ID: "guid-1", Source: "https://github.com/acme/shop", Type: "com.github.issues.opened", Subject: "issues/7",
				Data:       []byte(`{"action":"opened","issue":{"number":7},"repository":{"html_url":"https://github.com/acme/shop"}}`),
				Extensions: ext{"hook": "github", "githubevent": "issues", "githubhook": "42", "githubtarget": "repository", "githubtargetid": "79929171"},
			},
		},
		"a GitHub push, as a form": {
			githubForm("push", "guid-2", `{"ref":"refs/heads/main","repository":{"html_url":"https://github.com/acme/shop"}}`),
			events.Event{
				ID: "guid-2", Source: "https://github.com/acme/shop", Type: "com.github.push", Subject: "refs/heads/main",
				Data: []byte(`{"ref":"refs/heads/main","repository":{"html_url":"https://github.com/acme/shop"}}`), Extensions: ext{"hook": "github", "githubevent": "push"},
			},
		},
		"a GitHub ping": {
			github(secret, "ping", "guid-3", `{"zen":"Keep it simple.","hook_id":1}`),
			events.Event{ID: "guid-3", Source: "/hooks/github", Type: "com.github.ping", Data: []byte(`{"zen":"Keep it simple.","hook_id":1}`), Extensions: ext{"hook": "github", "githubevent": "ping"}},
		},
		"a message in Slack, sent again": {
			slack(secret, noon, jsonType, `{"token":"legacy","team_id":"T1","api_app_id":"A1","type":"event_callback","event_id":"Ev1","event_time":1772366400,"event":{"type":"message","subtype":"bot_message","channel":"C1","text":"<b>"}}`).with("X-Slack-Retry-Num", "2").with("X-Slack-Retry-Reason", "http_timeout"),
			events.Event{
				ID: "Ev1", Source: "/hooks/slack", Type: "com.slack.message.bot_message", Subject: "C1", Time: time.Unix(1772366400, 0).UTC(),
				Data:       []byte(`{"team_id":"T1","api_app_id":"A1","type":"event_callback","event_id":"Ev1","event_time":1772366400,"event":{"type":"message","subtype":"bot_message","channel":"C1","text":"<b>"}}`),
				Extensions: ext{"hook": "slack", "slackteam": "T1", "slackapp": "A1", "slackretry": int32(2), "slackretryreason": "http_timeout"},
			},
		},
		"a slash command in Slack": {
			slack(secret, noon, form, "token=legacy&team_id=T1&command=%2Fdeploy&text=main+now&user_id=U1"),
			events.Event{
				ID: "sha256-", Source: "/hooks/slack", Type: "com.slack.slash_command", Subject: "/deploy",
				Data: []byte(`{"command":"/deploy","team_id":"T1","text":"main now","user_id":"U1"}`), Extensions: ext{"hook": "slack", "slackteam": "T1"},
			},
		},
		"a button in Slack": {
			slack(secret, noon, form, "payload="+url.QueryEscape(`{"type":"block_actions","token":"legacy","team":{"id":"T1"},"user":{"id":"U1"}}`)),
			events.Event{
				ID: "sha256-", Source: "/hooks/slack", Type: "com.slack.block_actions", Subject: "U1",
				Data: []byte(`{"type":"block_actions","team":{"id":"T1"},"user":{"id":"U1"}}`), Extensions: ext{"hook": "slack", "slackteam": "T1"},
			},
		},
		"a payment at Stripe": {
			stripe(secret, noon, `{"id":"evt_1","object":"event","type":"invoice.paid","created":1772366000,"livemode":false,"api_version":"2025-01-27","account":"acct_1","data":{"object":{"id":"in_1"}}}`),
			events.Event{
				ID: "evt_1", Source: "/hooks/stripe", Type: "com.stripe.invoice.paid", Subject: "in_1", Time: time.Unix(1772366000, 0).UTC(),
				Data:       []byte(`{"id":"evt_1","object":"event","type":"invoice.paid","created":1772366000,"livemode":false,"api_version":"2025-01-27","account":"acct_1","data":{"object":{"id":"in_1"}}}`),
				Extensions: ext{"hook": "stripe", "stripelive": false, "stripeapiversion": "2025-01-27", "stripeaccount": "acct_1"},
			},
		},
		"a thin event of Stripe": {
			stripe(secret, noon, `{"id":"evt_2","object":"v2.core.event","type":"v2.core.account.updated","created":"2026-03-01T11:00:00.5Z","related_object":{"id":"acct_2"}}`),
			events.Event{
				ID: "evt_2", Source: "/hooks/stripe", Type: "com.stripe.v2.core.account.updated", Subject: "acct_2", Time: time.Date(2026, 3, 1, 11, 0, 0, 5e8, time.UTC),
				Data: []byte(`{"id":"evt_2","object":"v2.core.event","type":"v2.core.account.updated","created":"2026-03-01T11:00:00.5Z","related_object":{"id":"acct_2"}}`), Extensions: ext{"hook": "stripe"},
			},
		},
		"Standard Webhooks": {
			standard(t, whsec, "msg_1", noon, `{"type":"user.created","timestamp":"2026-03-01T11:59:58Z","data":{}}`),
			events.Event{
				ID: "msg_1", Source: "/hooks/standard", Type: "com.acme.user.created", Time: noon.Add(-2 * time.Second),
				Data: []byte(`{"type":"user.created","timestamp":"2026-03-01T11:59:58Z","data":{}}`), Extensions: ext{"hook": "standard"},
			},
		},
		"a shop": {
			custom(secret, "d-1", noon, `{"order":{"id":17},"at":1772366400123}`),
			events.Event{
				ID: "d-1", Source: "/hooks/hmac", Type: "com.shop.orders.create", Subject: "17", Time: time.UnixMilli(1772366400123).UTC(),
				Data: []byte(`{"order":{"id":17},"at":1772366400123}`), Extensions: ext{"hook": "hmac"},
			},
		},
		"GitLab": {
			request{"token", map[string]string{"X-Gitlab-Token": secret, "X-Gitlab-Event-UUID": "u-1", "Content-Type": jsonType}, `{"object_kind":"merge_request"}`},
			events.Event{ID: "u-1", Source: "/hooks/token", Type: "webhook.token.merge_request", Data: []byte(`{"object_kind":"merge_request"}`), Extensions: ext{"hook": "token"}},
		},
		"anyone, with a form": {
			request{"open", map[string]string{"Content-Type": form}, "a=1&b=2&b=3"},
			events.Event{Source: "/hooks/open", Type: "webhook.open.received", Data: []byte(`{"a":"1","b":["2","3"]}`), Extensions: ext{"hook": "open"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, everyKind()...)
			status := http.StatusAccepted
			if c.send.hook == "slack" {
				status = http.StatusOK
			}
			answer := b.post(c.send, status, webhook.Stored)
			if c.send.hook == "slack" && answer.Body.Len() > 0 {
				t.Errorf("Slack would show %q to the user", answer.Body)
			}
			got, want := b.wantStored(1)[0], c.want
			want.SpecVersion, want.DataContentType = "1.0", "application/json"
			if want.Time.IsZero() {
				want.Time = noon
			}
			switch {
			case want.ID == "sha256-" && len(got.ID) == 7+64:
				want.ID = got.ID
			case want.ID == "" && got.ID != "":
				want.ID = got.ID
			}
			if diff := cmp.Diff(&want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func githubForm(event, id, payload string) request {
	body := "payload=" + url.QueryEscape(payload)
	return github(secret, event, id, body).with("Content-Type", "application/x-www-form-urlencoded")
}

// TestSlackAsksFirst: the questions are answered, to Slack alone, and are no events.
func TestSlackAsksFirst(t *testing.T) {
	t.Parallel()
	b := setup(t, everyKind()...)
	verification := slack(secret, noon, "application/json", `{"token":"x","challenge":"3eZbrw1a<b>","type":"url_verification"}`)
	w := b.post(verification, http.StatusOK, webhook.Answered)
	var got struct{ Challenge string }
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Challenge != "3eZbrw1a<b>" || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("answered %s (%s), %v", w.Body, w.Header().Get("Content-Type"), err)
	}
	b.post(verification.with("X-Slack-Signature", "v0="+sha256Hex("another secret", verification.body)), http.StatusUnauthorized, webhook.BadSignature)
	b.post(slack(secret, noon, "application/x-www-form-urlencoded", "ssl_check=1&token=x"), http.StatusOK, webhook.Answered)
	b.wantStored(0)
}

// TestOtherSchemes: what can be said of a scheme in the configuration.
func TestOtherSchemes(t *testing.T) {
	t.Parallel()
	const body = `{"kind":"paid","ref":"r-1"}`
	sha512Base64 := func() string {
		h := hmac.New(sha512.New, []byte(secret))
		h.Write([]byte(body))
		return base64.StdEncoding.EncodeToString(h.Sum(nil))
	}
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	stamp := strconv.FormatInt(noon.Unix(), 10)
	signed := base64.StdEncoding.EncodeToString(ed25519.Sign(private, []byte("msg_1."+stamp+"."+body)))
	both := []string{secret}
	for name, c := range map[string]struct {
		hook   webhook.Hook
		header map[string]string
		id     string
		typ    string
	}{
		"SHA-512 in base64, all from the body": {
			webhook.Hook{Kind: webhook.HMAC, Secrets: both, Signature: webhook.Signature{Header: "x-sig", Algorithm: "sha512", Encoding: "base64"}, Event: webhook.Mapping{IDPath: "ref", TypePath: "kind"}},
			map[string]string{"X-Sig": sha512Base64()},
			"r-1", "webhook.h.paid",
		},
		"a secret in base64": {
			webhook.Hook{Kind: webhook.HMAC, Secrets: []string{base64.StdEncoding.EncodeToString([]byte(secret))}, TypePrefix: "a.b", Signature: webhook.Signature{Header: "X-Sig", SecretEncoding: "base64"}},
			map[string]string{"X-Sig": sha256Hex(secret, body)},
			"sha256-", "a.b.received",
		},
		"a time in RFC 3339 behind the body": {
			webhook.Hook{Kind: webhook.HMAC, Secrets: both, Signature: webhook.Signature{Header: "X-Sig", TimestampHeader: "X-At", Signed: "{body}|{timestamp}"}},
			map[string]string{"X-At": "2026-03-01T12:01:00Z", "X-Sig": sha256Hex(secret, body+"|2026-03-01T12:01:00Z")},
			"sha256-", "webhook.h.received",
		},
		"a bearer token": {
			webhook.Hook{Kind: webhook.Token, Secrets: both, Signature: webhook.Signature{Header: "Authorization", Prefix: "Bearer "}, DedupeBy: "body"},
			map[string]string{"Authorization": "Bearer " + secret},
			"sha256-", "webhook.h.received",
		},
		"Svix": {
			webhook.Hook{Kind: webhook.Standard, Secrets: []string{whsec}, Event: webhook.Mapping{TypePath: "kind"}},
			map[string]string{"Svix-Id": "msg_1", "Svix-Timestamp": stamp, "Svix-Signature": standard(t, whsec, "msg_1", noon, body).header["Webhook-Signature"]},
			"msg_1", "webhook.h.paid",
		},
		"a public key": {
			webhook.Hook{Kind: webhook.Standard, Secrets: []string{whsec, "whpk_" + base64.StdEncoding.EncodeToString(public)}, Event: webhook.Mapping{TypePath: "kind"}},
			map[string]string{"Webhook-Id": "msg_1", "Webhook-Timestamp": stamp, "Webhook-Signature": "v2,AAAA v1a," + signed},
			"msg_1", "webhook.h.paid",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.hook.Name = "h"
			b := setup(t, c.hook)
			r := request{"h", c.header, body}
			b.post(r, http.StatusAccepted, webhook.Stored)
			e := b.wantStored(1)[0]
			if c.id == "sha256-" && len(e.ID) == 7+64 {
				c.id = e.ID
			}
			if e.ID != c.id || e.Type != c.typ {
				t.Errorf("event %s of type %s, want %s of type %s", e.ID, e.Type, c.id, c.typ)
			}
			b.post(r, http.StatusAccepted, webhook.Duplicate)
			if c.hook.Kind != webhook.Token {
				b.post(r.carrying(`{"kind":"paid","ref":"r-2"}`), http.StatusUnauthorized, webhook.BadSignature)
			}
			b.wantStored(1)
		})
	}
}

// TestOtherData: what is no JSON is passed as it is.
func TestOtherData(t *testing.T) {
	t.Parallel()
	b := setup(t, everyKind()...)
	for contentType, body := range map[string]string{"text/plain; charset=utf-8": "hello", "application/octet-stream": "\x00\xff", "application/json": "[1, 2]\n", "": ""} {
		b.post(request{"open", map[string]string{"Content-Type": contentType}, body}, http.StatusAccepted, webhook.Stored)
	}
	got := make(map[string]string)
	for _, e := range b.wantStored(4) {
		got[e.DataContentType] = string(e.Data)
	}
	if diff := cmp.Diff(map[string]string{"text/plain; charset=utf-8": "hello", "application/octet-stream": "\x00\xff", "application/json": "[1, 2]", "": ""}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
