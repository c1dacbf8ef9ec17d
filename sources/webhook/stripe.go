package webhook

import (
	"encoding/hex"
	"net/http"
	"strings"
	"time"

	"github.com/bellhop-dev/bellhop/events"
)

// stripeScheme is that of Stripe: one header with the time and a signature for each secret that is active there.
// https://docs.stripe.com/webhooks#verify-manually
type stripeScheme struct{ tolerance time.Duration }

func (s stripeScheme) claim(h http.Header, now time.Time) (*claim, error) {
	value, err := header(h, "Stripe-Signature")
	if err != nil {
		return nil, err
	}
	c := new(claim)
	text := ""
	for pair := range strings.SplitSeq(value, ",") {
		switch name, content, _ := strings.Cut(strings.TrimSpace(pair), "="); name {
		case "t":
			if text != "" {
				return nil, refuse(BadSignature, "the signature has two times")
			}
			text = content
		case "v1": // v0 is a test's, and what comes later is not known yet
			raw, err := hex.DecodeString(content)
			if err != nil || len(raw) == 0 {
				return nil, refuse(BadSignature, "the signature is not hexadecimal")
			}
			if len(c.signatures) == maxSignatures {
				return nil, refuse(BadSignature, "the signatures are too many")
			}
			c.signatures = append(c.signatures, raw)
		}
	}
	if len(c.signatures) == 0 {
		return nil, refuse(BadSignature, "the header Stripe-Signature has no v1")
	}
	if c.at, err = fresh(text, now, s.tolerance); err != nil {
		return nil, err
	}
	c.before = []byte(text + ".")
	return c, nil
}

func (stripeScheme) event(d *delivery) (*events.Event, *reply, error) {
	data, o, err := readObject(d.body)
	if err != nil {
		return nil, nil, err
	}
	id, err := eventID(o.text("id"))
	if err != nil {
		return nil, nil, err
	}
	e := &events.Event{ID: id, Type: typeOf(o.text("type")), DataContentType: "application/json", Data: data}
	if e.Type == "" {
		return nil, nil, refuse(Malformed, "the body has no type")
	}
	e.Subject = firstOf(o.text("data", "object", "id"), o.text("related_object", "id"))
	e.Time = readTime(o.text("created"))
	d.extend(e, "stripeaccount", firstOf(o.text("account"), o.text("context")))
	d.extend(e, "stripeapiversion", o.text("api_version"))
	if live := o.text("livemode"); live != "" {
		if e.Extensions == nil {
			e.Extensions = make(map[string]any)
		}
		e.Extensions["stripelive"] = live == "true"
	}
	return e, nil, nil
}

func (stripeScheme) stored(e *events.Event, duplicate bool) *reply { return receipt(e, duplicate) }
