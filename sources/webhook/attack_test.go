package webhook_test

import (
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bellhop-dev/bellhop/sources/webhook"
)

// kindsThatSign makes a delivery of each provider, signed with a key at a time. In the order of everyKind's secrets: the new key, the
// old one, one that nobody knows.
func kindsThatSign(t testing.TB) map[string]func(key int, at time.Time, id string) request {
	t.Helper()
	keys := []string{secret, oldSecret, "a secret that the hook does not have"}
	standardKeys := []string{whsec, oldWhsec, "whsec_YSBzZWNyZXQgdGhhdCBub2JvZHkga25vd3M="}
	return map[string]func(key int, at time.Time, id string) request{
		"github": func(key int, _ time.Time, id string) request { return github(keys[key], "push", id, `{"ref":"main"}`) },
		"slack": func(key int, at time.Time, id string) request {
			return slack(keys[key], at, "application/json", `{"type":"event_callback","event_id":"`+id+`","event":{"type":"app_mention"}}`)
		},
		"stripe": func(key int, at time.Time, id string) request {
			return stripe(keys[key], at, `{"id":"`+id+`","object":"event","type":"invoice.paid"}`)
		},
		"standard": func(key int, at time.Time, id string) request {
			return standard(t, standardKeys[key], id, at, `{"type":"user.created"}`)
		},
		"hmac": func(key int, at time.Time, id string) request { return custom(keys[key], id, at, `{"order":1}`) },
	}
}

// signedParts are the headers without any of which nothing is proven.
var signedParts = map[string][]string{
	"github":   {"X-Hub-Signature-256"},
	"slack":    {"X-Slack-Signature", "X-Slack-Request-Timestamp"},
	"stripe":   {"Stripe-Signature"},
	"standard": {"Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"},
	"hmac":     {"X-Sign", "X-Sent", "X-Id"},
}

func accepted(hook string) int {
	if hook == "slack" {
		return http.StatusOK
	}
	return http.StatusAccepted
}

// TestReplayIsAbsorbed: the same delivery again gets a 2xx, so that it stops, and is stored once; also when the provider signed it anew.
func TestReplayIsAbsorbed(t *testing.T) {
	t.Parallel()
	for kind, deliver := range kindsThatSign(t) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := setup(t, everyKind()...)
			b.post(deliver(0, noon, "id-1"), accepted(kind), webhook.Stored)
			b.post(deliver(0, noon, "id-1"), accepted(kind), webhook.Duplicate)
			b.post(deliver(1, noon.Add(time.Minute), "id-1"), accepted(kind), webhook.Duplicate)
			b.post(deliver(0, noon, "id-2"), accepted(kind), webhook.Stored)
			b.wantStored(2)
		})
	}
}

// TestReplayAtOnce: of many equal deliveries at the same time one is stored, and all get a 2xx.
func TestReplayAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, everyKind()...)
	var stored, all sync.WaitGroup
	var fresh, again atomic.Int64
	start := make(chan struct{})
	for range 50 {
		stored.Add(1)
		all.Go(func() {
			w := newAnswer()
			r := github(secret, "push", "id-1", `{"ref":"main"}`).http()
			stored.Done()
			<-start
			b.mux.ServeHTTP(w, r)
			switch {
			case w.Code == http.StatusAccepted && strings.Contains(w.Body.String(), `"duplicate":false`):
				fresh.Add(1)
			case w.Code == http.StatusAccepted:
				again.Add(1)
			}
		})
	}
	stored.Wait()
	close(start)
	all.Wait()
	if fresh.Load() != 1 || again.Load() != 49 {
		t.Errorf("%d were told that they are stored, %d that they were before; want 1 and 49", fresh.Load(), again.Load())
	}
	b.wantStored(1)
}

// TestOldAndFutureTimes: a signed time that is far from now is refused, though the signature holds; one that is changed breaks it.
func TestOldAndFutureTimes(t *testing.T) {
	t.Parallel()
	for kind, deliver := range kindsThatSign(t) {
		if kind == "github" { // signs no time
			continue
		}
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := setup(t, everyKind()...)
			for _, off := range []time.Duration{-24 * time.Hour, -301 * time.Second, 301 * time.Second, 365 * 24 * time.Hour, -56 * 365 * 24 * time.Hour} {
				b.post(deliver(0, noon.Add(off), "id-1"), http.StatusUnauthorized, webhook.Stale)
			}
			old, young := deliver(0, noon.Add(-time.Hour), "id-1"), deliver(0, noon, "id-1")
			for name := range old.header { // the new time with the old signature, and the other way round
				if swapped := old.with(name, young.header[name]); swapped.header[name] != old.header[name] && len(signedParts[kind]) > 1 {
					b.post(swapped, http.StatusUnauthorized, outcomeOf(name))
				}
			}
			for _, text := range []string{"", " ", "x", "-1", "1e9", "+" + unix(noon), unix(noon) + ".0", " " + unix(noon), "99999999999999999999", "0x10"} {
				b.post(retimed(kind, young, text), http.StatusUnauthorized, webhook.BadSignature)
			}
			b.wantStored(0)
			for _, off := range []time.Duration{-300 * time.Second, 300 * time.Second} {
				b.post(deliver(0, noon.Add(off), "edge"+off.String()), accepted(kind), webhook.Stored)
			}
		})
	}
}

func outcomeOf(header string) webhook.Outcome {
	if strings.Contains(header, "Sign") { // a new signature beside the old time
		return webhook.Stale
	}
	return webhook.BadSignature
}

func unix(at time.Time) string { return strconv.FormatInt(at.Unix(), 10) }

// retimed signs the delivery properly, with a time that is none.
func retimed(kind string, r request, text string) request {
	switch kind {
	case "slack":
		return r.with("X-Slack-Request-Timestamp", text).with("X-Slack-Signature", "v0="+sha256Hex(secret, "v0:"+text+":"+r.body))
	case "stripe":
		return r.with("Stripe-Signature", "t="+text+",v1="+sha256Hex(secret, text+"."+r.body))
	case "hmac":
		return r.with("X-Sent", text).with("X-Sign", "sha256="+sha256Hex(secret, r.header["X-Id"]+"."+text+"."+r.body))
	default:
		return r.with("Webhook-Timestamp", text)
	}
}

// TestSwappedBody: another body under the same id, or another id over the same body, is refused by the signature.
func TestSwappedBody(t *testing.T) {
	t.Parallel()
	for kind, deliver := range kindsThatSign(t) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := setup(t, everyKind()...)
			r := deliver(0, noon, "id-1")
			b.post(r, accepted(kind), webhook.Stored)
			for _, body := range []string{"", "{}x", r.body + "\n", " " + r.body, r.body[:len(r.body)-1], strings.ToUpper(r.body), strings.Repeat("x", 1000)} {
				b.post(r.carrying(body), http.StatusUnauthorized, webhook.BadSignature)
			}
			b.post(r.carrying(deliver(0, noon, "id-2").body+" "), http.StatusUnauthorized, webhook.BadSignature)
			switch kind {
			case "standard":
				b.post(r.with("Webhook-Id", "id-2"), http.StatusUnauthorized, webhook.BadSignature)
			case "hmac":
				b.post(r.with("X-Id", "id-2"), http.StatusUnauthorized, webhook.BadSignature)
			}
			b.wantStored(1)
		})
	}
}

// TestBodyInsideID: what is signed is one text, and can be cut in one way only.
func TestBodyInsideID(t *testing.T) {
	t.Parallel()
	b := setup(t, everyKind()...)
	at := unix(noon)
	r := standard(t, whsec, "msg", noon, at+`.{"type":"user.created"}`)
	b.post(r.with("Webhook-Id", "msg."+at).carrying(`{"type":"user.created"}`), http.StatusUnauthorized, webhook.BadSignature)
	b.wantStored(0)
}

// TestDedupeByBody: where the id isn't signed, a captured delivery under another id is the same event, if the hook asks for it.
func TestDedupeByBody(t *testing.T) {
	t.Parallel()
	hooks := everyKind()
	hooks[0].DedupeBy = "body"
	b := setup(t, hooks...)
	r := github(secret, "push", "id-1", `{"ref":"main"}`)
	b.post(r, http.StatusAccepted, webhook.Stored)
	b.post(r.with("X-GitHub-Delivery", "id-2"), http.StatusAccepted, webhook.Duplicate)
	b.post(github(secret, "push", "id-1", `{"ref":"next"}`), http.StatusAccepted, webhook.Stored)
	for _, e := range b.wantStored(2) {
		if !strings.HasPrefix(e.ID, "sha256-") || e.Extensions["deliveryid"] != "id-1" {
			t.Errorf("event %s of delivery %v", e.ID, e.Extensions["deliveryid"])
		}
	}
}

// TestRotation: each secret is good, until it is removed.
func TestRotation(t *testing.T) {
	t.Parallel()
	for kind, deliver := range kindsThatSign(t) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := setup(t, everyKind()...)
			b.post(deliver(0, noon, "new"), accepted(kind), webhook.Stored)
			b.post(deliver(1, noon, "old"), accepted(kind), webhook.Stored)
			b.post(deliver(2, noon, "unknown"), http.StatusUnauthorized, webhook.BadSignature)
			hooks := everyKind()
			for i, h := range hooks {
				hooks[i].Secrets = h.Secrets[:min(1, len(h.Secrets))]
			}
			b = setup(t, hooks...)
			b.post(deliver(0, noon, "new"), accepted(kind), webhook.Stored)
			b.post(deliver(1, noon, "old"), http.StatusUnauthorized, webhook.BadSignature)
		})
	}
}

// TestRotationInFile: a changed file is read again; one that is broken leaves the secrets as they were.
func TestRotationInFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "github.secret")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(oldSecret + "\n")
	b := setup(t, webhook.Hook{Name: "github", Kind: webhook.GitHub, SecretsFiles: []string{file}})
	now := noon
	b.receiver.SetClock(func() time.Time { return now })
	b.post(github(oldSecret, "push", "1", `{}`), http.StatusAccepted, webhook.Stored)

	write("\n" + secret + "  \r\n" + oldSecret)
	b.post(github(oldSecret, "push", "2", `{}`), http.StatusAccepted, webhook.Stored) // not looked at yet
	now = now.Add(2 * time.Second)
	b.post(github(secret, "push", "3", `{}`), http.StatusAccepted, webhook.Stored)
	b.post(github(oldSecret, "push", "4", `{}`), http.StatusAccepted, webhook.Stored)

	for _, broken := range []string{"", "short", strings.Repeat("x", 1<<17), strings.Repeat(secret+"\n", 11)} {
		write(broken)
		now = now.Add(2 * time.Second)
		b.post(github(secret, "push", "5", `{}`), http.StatusAccepted, b.storedOr(webhook.Duplicate))
	}
	if log := b.log.String(); strings.Count(log, "secrets of a hook not read again") != 4 || strings.Contains(log, "short\"") {
		t.Errorf("log: %s", log)
	}

	write(secret)
	now = now.Add(2 * time.Second)
	b.post(github(oldSecret, "push", "6", `{}`), http.StatusUnauthorized, webhook.BadSignature)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * time.Second)
	b.post(github(secret, "push", "7", `{}`), http.StatusAccepted, webhook.Stored)
}

// storedOr is Stored as long as the fifth delivery is not on the stream.
func (b *bundle) storedOr(other webhook.Outcome) webhook.Outcome {
	for _, e := range b.stored() {
		if e.ID == "5" {
			return other
		}
	}
	return webhook.Stored
}

// TestSeveralSignatures: a provider in a rotation sends one for each of its secrets.
func TestSeveralSignatures(t *testing.T) {
	t.Parallel()
	b := setup(t, everyKind()...)
	at := unix(noon)
	const body = `{"id":"evt_1","object":"event","type":"invoice.paid"}`
	bad, good := sha256Hex("a secret that nobody knows", at+"."+body), sha256Hex(oldSecret, at+"."+body)
	for header, ok := range map[string]bool{
		"t=" + at + ",v1=" + bad + ",v1=" + good:        true,
		"t=" + at + ", v1=" + good + ", v0=zz, v9=x, n": true,
		"v1=" + good + ",t=" + at:                       true,
		"t=" + at + ",v1=" + bad + ",v1=" + bad:         false,
		"t=" + at + ",v0=" + good:                       false,
		"t=" + at + ",v1=":                              false,
		"t=" + at + ",v1=" + good[:62]:                  false,
		"t=" + at + ",v1=" + good + "00":                false,
		"t=" + at + ",v1=zz,v1=" + good:                 false,
		"t=" + at + ",t=" + at + ",v1=" + good:          false,
		"v1=" + good:                                    false,
		"t=" + at:                                       false,
		"":                                              false,
		"t=" + at + strings.Repeat(",v1="+bad, 16) + ",v1=" + good:          false, // so many are an attack
		"t=" + strconv.FormatInt(noon.Unix()+1, 10) + ",v1=" + good:         false,
		"t=" + at + ",v1=" + strings.ToUpper(good[:32]) + "," + "v1" + good: false,
	} {
		b.try(request{"stripe", map[string]string{"Stripe-Signature": header}, body}, ok)
	}
	b.wantStored(1)

	one := standard(t, oldWhsec, "msg_1", noon, `{}`)
	text := one.header["Webhook-Signature"]
	other := standard(t, "whsec_YSBzZWNyZXQgdGhhdCBub2JvZHkga25vd3M=", "msg_1", noon, `{}`).header["Webhook-Signature"]
	for header, ok := range map[string]bool{
		other + " " + text:                      true,
		"v2,xx " + text + " v1a,AAAA":           true,
		other + " " + other:                     false,
		strings.Replace(text, "v1,", "v2,", 1):  false,
		strings.Replace(text, "v1,", "v1a,", 1): false,
		strings.Replace(text, "v1,", "v1=", 1):  false,
		text[:len(text)-2]:                      false,
		"v1,":                                   false,
		"v1,!!! " + text:                        false,
		strings.Replace(text, "v1,", "", 1):     false,
		"":                                      false,
		strings.Repeat(other+" ", 16) + text:    false,
	} {
		b.try(one.with("Webhook-Signature", header), ok)
	}
	b.wantStored(2)
}

// try wants the delivery to be taken, or refused for its signature.
func (b *bundle) try(r request, ok bool) {
	b.Helper()
	w := newAnswer()
	b.mux.ServeHTTP(w, r.http())
	if taken := w.Code/100 == 2; taken != ok || !ok && w.Code != http.StatusUnauthorized {
		b.Errorf("%v: status %d, taken is %v, want %v", r.header, w.Code, taken, ok)
	}
}

// TestMissingAndWrongPieces: each part of each scheme left out, emptied, doubled, mutilated or of another algorithm.
func TestMissingAndWrongPieces(t *testing.T) {
	t.Parallel()
	for kind, deliver := range kindsThatSign(t) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := setup(t, everyKind()...)
			r := deliver(0, noon, "id-1")
			for _, name := range signedParts[kind] {
				b.post(r.without(name), http.StatusUnauthorized, webhook.BadSignature)
				b.post(r.with(name, ""), http.StatusUnauthorized, webhook.BadSignature)
				value := r.header[name]
				if kind != "stripe" { // which ends with a signature that is not looked at
					b.post(r.with(name, value[:len(value)-1]), http.StatusUnauthorized, b.lateOr(name))
				}
				b.post(r.with(name, "\u00e9"+value), http.StatusUnauthorized, webhook.BadSignature)
				twice := r.http()
				twice.Header.Add(name, value)
				b.serve(twice, http.StatusUnauthorized, webhook.BadSignature)
			}
			for _, name := range signedParts[kind] {
				for _, prefix := range []string{"sha1=", "sha256=", "sha512=", "md5=", "v0=", "v1=", "v2=", "v1,", "=", "SHA256="} {
					bare := strings.TrimPrefix(strings.TrimPrefix(r.header[name], "sha256="), "v0=")
					if strings.Contains(name, "Sign") && prefix+bare != r.header[name] {
						b.post(r.with(name, prefix+bare), http.StatusUnauthorized, webhook.BadSignature)
					}
				}
			}
			b.post(request{hook: kind, body: r.body}, http.StatusUnauthorized, webhook.BadSignature)
			b.wantStored(0)
			b.post(r, accepted(kind), webhook.Stored)
		})
	}
}

// lateOr is what a shortened header is refused for: of a time, what is left is long ago.
func (*bundle) lateOr(name string) webhook.Outcome {
	if name == "X-Slack-Request-Timestamp" || name == "Webhook-Timestamp" || name == "X-Sent" {
		return webhook.Stale
	}
	return webhook.BadSignature
}

// TestSHA1IsNotLookedAt: GitHub's older header proves nothing, not even beside a missing newer one.
func TestSHA1IsNotLookedAt(t *testing.T) {
	t.Parallel()
	b := setup(t, everyKind()...)
	r := github(secret, "push", "id-1", `{}`)
	r = r.without("X-Hub-Signature-256").with("X-Hub-Signature", r.header["X-Hub-Signature-256"])
	b.post(r, http.StatusUnauthorized, webhook.BadSignature)
	b.wantStored(0)
}

// TestHooksDoNotShareKeys: what one hook's provider signed is nothing to another hook.
func TestHooksDoNotShareKeys(t *testing.T) {
	t.Parallel()
	b := setup(t,
		webhook.Hook{Name: "one", Kind: webhook.GitHub, Secrets: []string{secret}},
		webhook.Hook{Name: "two", Kind: webhook.GitHub, Secrets: []string{oldSecret}})
	b.post(github(secret, "push", "id", `{}`).to("one"), http.StatusAccepted, webhook.Stored)
	b.post(github(secret, "push", "id", `{}`).to("two"), http.StatusUnauthorized, webhook.BadSignature)
}

// TestTokens: the token is whole or it is none.
func TestTokens(t *testing.T) {
	t.Parallel()
	b := setup(t, everyKind()...)
	for i, token := range slices.Sorted(maps.Keys(map[string]bool{secret: true, oldSecret: true, "": false, secret[1:]: false, secret + "x": false, " " + secret + ".": false, strings.ToUpper(secret): false})) {
		r := request{"token", map[string]string{"X-Gitlab-Token": token, "X-Gitlab-Event-UUID": strconv.Itoa(i)}, `{}`}
		b.try(r, token == secret || token == oldSecret)
	}
	b.wantStored(2)
}
