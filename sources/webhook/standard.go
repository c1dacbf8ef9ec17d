package webhook

import (
	"net/http"
	"strings"
	"time"

	"github.com/bellhop-dev/bellhop/events"
)

// standardScheme is Standard Webhooks: id, time and body are signed.
// https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
type standardScheme struct {
	tolerance time.Duration
	mapping   Mapping
}

func (s standardScheme) claim(h http.Header, now time.Time) (*claim, error) {
	prefix := "Webhook-"
	if len(h["Webhook-Id"]) == 0 && len(h["Svix-Id"]) > 0 {
		prefix = "Svix-" // the same, from before there was a standard
	}
	id, err := header(h, prefix+"Id")
	if err != nil {
		return nil, err
	}
	text, err := header(h, prefix+"Timestamp")
	if err != nil {
		return nil, err
	}
	value, err := header(h, prefix+"Signature")
	if err != nil {
		return nil, err
	}
	if strings.Contains(id, ".") { // else "a.1" at 2 and "a" at 1.2 would be one text
		return nil, refuse(BadSignature, "the delivery's id has a dot")
	}
	at, err := fresh(text, now, s.tolerance)
	if err != nil {
		return nil, err
	}
	c := &claim{id: id, at: at, before: []byte(id + "." + text + ".")}
	return c, c.standardSignatures(value)
}

// standardSignatures reads "v1,<base64> v1a,<base64> ...". Versions that we don't know are left out.
func (c *claim) standardSignatures(value string) error {
	for part := range strings.FieldsSeq(value) {
		version, text, _ := strings.Cut(part, ",")
		if version != "v1" && version != "v1a" {
			continue
		}
		raw, err := base64Signature(text)
		if err != nil {
			return err
		}
		if len(c.signatures)+len(c.ed25519) == maxSignatures {
			return refuse(BadSignature, "the signatures are too many")
		}
		if version == "v1" {
			c.signatures = append(c.signatures, raw)
		} else {
			c.ed25519 = append(c.ed25519, raw)
		}
	}
	if len(c.signatures)+len(c.ed25519) == 0 {
		return refuse(BadSignature, "there is no signature of version v1 or v1a")
	}
	return nil
}

func (s standardScheme) event(d *delivery) (*events.Event, *reply, error) {
	id, err := eventID(d.claim.id)
	if err != nil {
		return nil, nil, err
	}
	e, err := s.mapping.event(d)
	if err != nil {
		return nil, nil, err
	}
	e.ID = id
	return e, nil, nil
}

func (standardScheme) stored(e *events.Event, duplicate bool) *reply { return receipt(e, duplicate) }
