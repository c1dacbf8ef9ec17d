package handlers

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/job"
)

// webhookMessage is what an endpoint gets: the same in every attempt, but for the time stamp.
type webhookMessage struct {
	id      string
	body    []byte
	headers http.Header // of the content
}

const contentCloudEvents = "application/cloudevents+json"

// newWebhookMessage makes the body of an event or of given JSON.
func newWebhookMessage(ctx context.Context, event, given any, send string) (*webhookMessage, error) {
	m := &webhookMessage{headers: make(http.Header)}
	var err error
	if m.id, err = webhookID(ctx); err != nil {
		return nil, err
	}
	switch {
	case event != nil && given != nil:
		return nil, errors.New("event and json are both given: a delivery has one body, leave one of them out")
	case given != nil:
		m.headers.Set("Content-Type", "application/json")
		if m.body, err = literal(given); err != nil {
			return nil, errors.New("json: it can't be encoded")
		}
		return m, nil
	case event == nil:
		return nil, errors.New("nothing to send: give event (in a trigger ${event}) or json")
	}
	text, err := literal(event)
	if err != nil {
		return nil, errors.New("event: it can't be encoded")
	}
	decoded, err := events.Decode(text)
	if err != nil {
		return nil, fmt.Errorf("event: %w", err)
	}
	switch send {
	case sendEvent:
		m.headers.Set("Content-Type", contentCloudEvents)
		m.body = text
	case sendData:
		m.setBinary(decoded)
	default:
		return nil, fmt.Errorf("send: %.20q is neither event nor data", send)
	}
	return m, nil
}

// literal is the JSON that a payload holds, to the letter.
func literal(value any) ([]byte, error) {
	if raw, ok := value.(json.RawMessage); ok {
		return raw, nil
	}
	return encode(value)
}

// webhookID is one for each job, and the same in all its attempts. It has no dot: the signature is over id.time.body.
func webhookID(ctx context.Context) (string, error) {
	key, err := job.IdempotencyKey(ctx, "webhook")
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(key))
	return "msg_" + hex.EncodeToString(sum[:16]), nil
}

// setBinary is the binary mode of CloudEvents over HTTP.
func (m *webhookMessage) setBinary(e *events.Event) {
	m.body = e.Data
	switch {
	case e.DataContentType != "":
		m.headers.Set("Content-Type", headerText(e.DataContentType))
	case e.Data != nil:
		m.headers.Set("Content-Type", "application/json")
	}
	set := func(name, value string) {
		if value != "" {
			m.headers.Set("Ce-"+name, headerText(value))
		}
	}
	set("specversion", events.SpecVersion)
	set("id", e.ID)
	set("source", e.Source)
	set("type", e.Type)
	set("subject", e.Subject)
	set("dataschema", e.DataSchema)
	if !e.Time.IsZero() {
		set("time", e.Time.Format(time.RFC3339Nano))
	}
	for name, value := range e.Extensions {
		set(name, fmt.Sprint(value))
	}
}

// headerText escapes what the binary mode wants escaped: spaces, quotes, percent signs and what is not printable ASCII.
func headerText(s string) string {
	var out strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c < '!' && c != ' ' || c > '~' || c == '"' || c == '%':
			fmt.Fprintf(&out, "%%%02X", c)
		case c == ' ' && (i == 0 || i == len(s)-1): // else a server would trim it
			out.WriteString("%20")
		default:
			out.WriteByte(c)
		}
	}
	return out.String()
}

// sign sets the headers of Standard Webhooks. Every key signs, so that receivers may know the old one or the new one.
func (m *webhookMessage) sign(h http.Header, keys []signingKey, now time.Time) {
	stamp := strconv.FormatInt(now.Unix(), 10)
	signatures := make([]string, len(keys))
	for i, key := range keys {
		mac := hmac.New(sha256.New, key.key)
		mac.Write([]byte(m.id + "." + stamp + "."))
		mac.Write(m.body)
		signatures[i] = "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	h.Set("Webhook-Id", m.id)
	h.Set("Webhook-Timestamp", stamp)
	h.Set("Webhook-Signature", strings.Join(signatures, " "))
}
