package webhook

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/bellhop-dev/bellhop/events"
)

// genericScheme is what the configuration says it is: of the kinds hmac, token and none.
type genericScheme struct {
	kind      string
	signature Signature
	mapping   Mapping
	tolerance time.Duration
}

func newGenericScheme(h Hook) genericScheme {
	s := genericScheme{kind: h.Kind, signature: h.Signature, mapping: h.Event, tolerance: h.Tolerance}
	s.signature.Header, s.signature.TimestampHeader = canonical(s.signature.Header), canonical(s.signature.TimestampHeader)
	s.mapping.IDHeader, s.mapping.TypeHeader = canonical(s.mapping.IDHeader), canonical(s.mapping.TypeHeader)
	return s
}

func (s genericScheme) claim(h http.Header, now time.Time) (*claim, error) {
	if s.kind == None {
		return new(claim), nil
	}
	value, err := header(h, s.signature.Header)
	if err != nil {
		return nil, err
	}
	if s.kind == Token {
		token, ok := strings.CutPrefix(value, s.signature.Prefix)
		if !ok {
			return nil, refuse(BadSignature, "the token does not begin with the prefix")
		}
		return &claim{token: token}, nil
	}
	c := new(claim)
	text, ok := strings.CutPrefix(value, s.signature.Prefix)
	if !ok {
		return nil, refuse(BadSignature, "the signature does not begin with the prefix")
	}
	var raw []byte
	if s.signature.Encoding == "base64" {
		raw, err = base64Signature(text)
	} else {
		raw, err = hexSignature(text, "")
	}
	if err != nil {
		return nil, err
	}
	c.signatures = [][]byte{raw}
	return c, s.signedText(c, h, now)
}

// signedText fills in what is signed around the body.
func (s genericScheme) signedText(c *claim, h http.Header, now time.Time) error {
	before, after, _ := strings.Cut(s.signature.Signed, "{body}")
	stamp, id := "", ""
	var err error
	if s.signature.TimestampHeader != "" {
		if stamp, err = header(h, s.signature.TimestampHeader); err != nil {
			return err
		}
		if c.at = readTime(stamp); c.at.IsZero() {
			return refuse(BadSignature, "the signed time is none")
		}
		if err = near(c.at, now, s.tolerance); err != nil {
			return err
		}
	}
	if strings.Contains(before+after, "{id}") {
		if id, err = header(h, s.mapping.IDHeader); err != nil {
			return err
		}
	}
	fill := strings.NewReplacer("{timestamp}", stamp, "{id}", id)
	c.before, c.after = []byte(fill.Replace(before)), []byte(fill.Replace(after))
	return nil
}

func (s genericScheme) event(d *delivery) (*events.Event, *reply, error) {
	e, err := s.mapping.event(d)
	if err != nil {
		return nil, nil, err
	}
	if e.ID == "" && s.kind == HMAC {
		e.ID = d.claim.digest(d.body)
	}
	return e, nil, nil
}

func (genericScheme) stored(e *events.Event, duplicate bool) *reply { return receipt(e, duplicate) }

// event takes the data as it is, JSON if it can be, and from it what is asked for.
func (m Mapping) event(d *delivery) (*events.Event, error) {
	e := new(events.Event)
	o, err := d.generalData(e)
	if err != nil {
		return nil, err
	}
	if m.IDHeader != "" || m.IDPath != "" {
		if e.ID, err = eventID(m.pick(d, o, m.IDHeader, m.IDPath)); err != nil {
			return nil, err
		}
	}
	if e.Type = typeOf(m.pick(d, o, m.TypeHeader, m.TypePath)); e.Type == "" {
		e.Type = "received" // what is signed is not lost for a missing name
	}
	e.Subject = clean(o.at(m.SubjectPath), 512)
	e.Time = readTime(o.at(m.TimePath))
	return e, nil
}

func (Mapping) pick(d *delivery, o object, header, path string) string {
	if header != "" {
		return d.header.Get(header)
	}
	return o.at(path)
}

// generalData sets the event's data: JSON, a form as JSON, or the body under its own type.
func (d *delivery) generalData(e *events.Event) (object, error) {
	mediaType := d.mediaType()
	switch {
	case len(d.body) == 0:
		return nil, nil
	case mediaType == formType:
		form, err := readForm(d.body)
		if err != nil {
			return nil, err
		}
		b, err := formJSON(form)
		if err != nil {
			return nil, err
		}
		e.DataContentType, e.Data = "application/json", b
		_, o, err := readJSON(b)
		return o, err
	case mediaType != "" && !isJSON(mediaType):
		e.DataContentType, e.Data = clean(d.header.Get("Content-Type"), 256), d.body
		return nil, nil
	default:
		data, o, err := readJSON(d.body)
		e.DataContentType, e.Data = "application/json", data
		return o, err
	}
}

// uri is the text if it can be an event's source.
func uri(text string) string {
	if len(text) > 1024 || text != clean(text, 1024) {
		return ""
	}
	if _, err := url.Parse(text); err != nil {
		return ""
	}
	return text
}
