package webhook_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/sources/webhook"
)

// judge stands where the stream is: it keeps what would be stored, if the stream's own rules take it. What is fuzzed is what is in front
// of it, and a real Redis would answer a thousand times more slowly.
type judge struct{ stored []*events.Event }

func (j *judge) Publish(_ context.Context, list ...*events.Event) ([]events.Published, error) {
	outcomes := make([]events.Published, len(list))
	for i, e := range list {
		if err := e.Validate(); err != nil {
			outcomes[i].Err = err
			return outcomes, err
		}
		j.stored = append(j.stored, e)
	}
	return outcomes, nil
}

// fuzzHook wants of any request to the hook: no panic, nothing stored but what was signed, and what is signed and stored is a valid
// event that can be read again.
func fuzzHook(f *testing.F, hook string, headers [3]string, sign func(t testing.TB, values [3]string, body string) request) {
	f.Helper()
	f.Fuzz(func(t *testing.T, a, b, c, contentType, body string, honest bool) {
		stream := new(judge)
		receiver, err := webhook.New(everyKind(), stream, slog.New(slog.DiscardHandler), nil)
		if err != nil {
			t.Fatal(err)
		}
		receiver.SetClock(func() time.Time { return noon })
		var r request
		if honest {
			r = sign(t, [3]string{a, b, c}, body)
		} else {
			r = request{hook: hook, body: body, header: map[string]string{headers[0]: a, headers[1]: b, headers[2]: c}}
		}
		req := httptest.NewRequest(http.MethodPost, "/hooks/"+hook, strings.NewReader(body))
		for name, value := range r.header {
			req.Header[http.CanonicalHeaderKey(name)] = []string{value}
		}
		if contentType != "" {
			req.Header.Set("Content-Type", contentType)
		}
		w := httptest.NewRecorder()
		receiver.ServeHTTP(w, req)
		switch {
		case w.Code/100 == 2 && !honest && !signedByChance(t, r, sign, [3]string{a, b, c}, headers):
			t.Fatalf("taken without a signature: %v", r.header)
		case w.Code >= 500:
			t.Fatalf("status %d", w.Code)
		case len(stream.stored) > 1 || len(stream.stored) == 1 && w.Code/100 != 2:
			t.Fatalf("%d are stored, status %d", len(stream.stored), w.Code)
		}
		for _, e := range stream.stored {
			again, err := events.Decode(e.AppendJSON(nil))
			if err != nil {
				t.Fatalf("%+v is stored, and cannot be read: %v", e, err)
			}
			if again.ID != e.ID || again.Type != e.Type || again.Source != e.Source {
				t.Fatalf("stored %+v, read %+v", e, again)
			}
		}
	})
}

// signedByChance: the corpus holds good signatures, and may come back to them.
func signedByChance(t testing.TB, r request, sign func(testing.TB, [3]string, string) request, values, headers [3]string) bool {
	t.Helper()
	honest := sign(t, values, r.body)
	for _, name := range headers {
		if strings.Contains(name, "Sign") && honest.header[name] == r.header[name] {
			return true
		}
	}
	return false
}

func FuzzGitHub(f *testing.F) {
	sign := func(_ testing.TB, v [3]string, body string) request {
		return github(secret, v[1], v[2], body)
	}
	f.Add("sha256=00", "issues", "id", "application/json", `{"action":"opened","issue":{"number":1}}`, true)
	f.Add("", "push", "id", "application/x-www-form-urlencoded", `payload=%7B%7D`, true)
	f.Add("sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17", "push", "id", "", `Hello, World!`, false)
	fuzzHook(f, "github", [3]string{"X-Hub-Signature-256", "X-GitHub-Event", "X-GitHub-Delivery"}, sign)
}

func FuzzSlack(f *testing.F) {
	sign := func(_ testing.TB, _ [3]string, body string) request {
		return slack(secret, noon, "application/json", body)
	}
	f.Add("v0=00", unix(noon), "1", "", `{"type":"url_verification","challenge":"x"}`, true)
	f.Add("v0=00", unix(noon), "1", "application/json", `{"type":"event_callback","token":"x","event_id":"Ev1","event_time":1,"event":{"type":"message"}}`, true)
	f.Add("v0=", "-1", "", "application/x-www-form-urlencoded", `command=%2Fa&text=b&text=c&token=x`, true)
	f.Add("v0=", "1e9", "", "application/x-www-form-urlencoded", `payload=%7B%22type%22%3A%22shortcut%22%7D`, true)
	fuzzHook(f, "slack", [3]string{"X-Slack-Signature", "X-Slack-Request-Timestamp", "X-Slack-Retry-Num"}, sign)
}

func FuzzStripe(f *testing.F) {
	sign := func(_ testing.TB, _ [3]string, body string) request { return stripe(secret, noon, body) }
	f.Add("t="+unix(noon)+",v1=00,v1=01,v0=zz", "", "", "application/json", `{"id":"evt_1","type":"invoice.paid","created":1,"livemode":true}`, true)
	f.Add("t=,t=,v1=", "", "", "", `{"id":"evt_1","type":"a","created":"2026-01-01T00:00:00Z"}`, false)
	fuzzHook(f, "stripe", [3]string{"Stripe-Signature", "X-A", "X-B"}, sign)
}

func FuzzStandard(f *testing.F) {
	sign := func(t testing.TB, v [3]string, body string) request {
		t.Helper()
		return standard(t, whsec, v[1], noon, body)
	}
	f.Add("v1,AAAA v1a,AAAA", "msg_1", unix(noon), "application/json", `{"type":"a.b","timestamp":"2026-01-01T00:00:00Z"}`, true)
	f.Add("v1,", "a.b", "1", "text/plain", ``, false)
	fuzzHook(f, "standard", [3]string{"Webhook-Signature", "Webhook-Id", "Webhook-Timestamp"}, sign)
}

func FuzzHMAC(f *testing.F) {
	sign := func(_ testing.TB, v [3]string, body string) request {
		return custom(secret, v[1], noon, body).with("X-Topic", v[2])
	}
	f.Add("sha256=00", "id", "orders/create", "application/json", `{"order":{"id":1},"at":17}`, true)
	f.Add("sha256=", "", "", "application/x-www-form-urlencoded", `a=1&a=2&%zz`, true)
	fuzzHook(f, "hmac", [3]string{"X-Sign", "X-Id", "X-Topic"}, sign)
}

// FuzzObject holds the scanner of members against encoding/json.
func FuzzObject(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":1,"a":{"b":[1,"}"]},"\u0061":"\"\\"}`, `{"a" : "x" , "b":null}`, `[{"a":1}]`, `"x"`, ` 1 `, `{"a":1`, `{"a":1}}`, `{"é":"\ud800"}`, `nul`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		data, members, err := webhook.ReadJSON(body)
		var want map[string]json.RawMessage
		isObject := json.Unmarshal(data, &want) == nil && want != nil
		if !json.Valid(data) || err != nil {
			if json.Valid(body) && err != nil && !strings.Contains(string(body), strings.Repeat("[", 100)) && depth(body) < 400 {
				t.Fatalf("%q is refused: %v", body, err)
			}
			return // what is no JSON is refused when it is published
		}
		if isObject != (members != nil) {
			t.Fatalf("%q: an object is %v, members are found %v", body, isObject, members != nil)
		}
		if !isObject {
			return
		}
		got := make(map[string]json.RawMessage, len(members))
		for name, value := range members {
			got[name] = json.RawMessage(value)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%q (-encoding/json +ours):\n%s", body, diff)
		}
		_, rest := webhook.TextAt(body, "a.b", "a")
		delete(want, "a")
		var left map[string]json.RawMessage
		if err := json.Unmarshal(rest, &left); err != nil || len(left) != len(want) {
			t.Fatalf("%q without a is %q: %v", body, rest, err)
		}
	})
}

func depth(b []byte) (most int) {
	now := 0
	for _, c := range b {
		switch c {
		case '[', '{':
			now++
			most = max(most, now)
		case ']', '}':
			now--
		}
	}
	return most
}

// FuzzAttributes: whatever a provider names something, it becomes an attribute that the stream takes.
func FuzzAttributes(f *testing.F) {
	f.Add("orders/create", "é\x00\xff", 5)
	f.Fuzz(func(t *testing.T, name, text string, most int) {
		most = min(max(most, 1), 1024)
		typ, subject := webhook.TypeOf(name), webhook.Clean(text, most)
		if len(subject) > most {
			t.Fatalf("%d bytes, %d are allowed", len(subject), most)
		}
		if typ != webhook.TypeOf(typ) || typ == "" {
			if typ != "" {
				t.Fatalf("%q becomes %q, and that %q", name, typ, webhook.TypeOf(typ))
			}
			return
		}
		if _, err := events.New(typ, "/x", nil, events.Subject(subject)); err != nil {
			t.Fatal(err)
		}
	})
}
