package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"mime"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
)

// SpecVersion is the version of CloudEvents that this package reads and writes.
const SpecVersion = "1.0"

// contentJSON is what an absent datacontenttype means in the JSON format.
const contentJSON = "application/json"

// Event is a CloudEvents 1.0 record. [New] fills in an id and a time; [Event.Validate] tells what is wrong with one.
type Event struct {
	// SpecVersion is "1.0"; empty counts as "1.0".
	SpecVersion string
	// ID is unique within Source: the two together name the event, and what has the same two is the same event.
	ID string
	// Source is a URI reference naming the context in which the event happened.
	Source string
	// Type is what happened, by custom in reverse-DNS: "com.acme.email.received".
	Type string
	// Subject is what it happened to, within the source. Optional.
	Subject string
	// Time is when it happened; the zero time is "not told".
	Time time.Time
	// DataContentType is the media type of Data; empty is JSON.
	DataContentType string
	// DataSchema is the absolute URI of the schema that Data keeps to. Optional.
	DataSchema string
	// Data is the payload: a JSON text if [Event.IsJSON], any bytes otherwise; nil is "no data".
	Data []byte
	// Extensions are further attributes: names of a-z and 0-9, values string, bool or int32.
	Extensions map[string]any
}

// New returns a valid event of now, with an id of its own (a time-ordered UUID).
//
// Data of type json.RawMessage is taken as it is, a []byte is application/octet-stream unless [ContentType] says
// otherwise, nil is no data, and anything else is marshalled as JSON. The error reports every fault at once.
func New(typ, source string, data any, opts ...Option) (*Event, error) {
	e := &Event{SpecVersion: SpecVersion, Type: typ, Source: source, Time: time.Now().UTC()}
	for _, opt := range opts {
		opt(e)
	}
	if e.ID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return nil, fmt.Errorf("make an event id: %w", err)
		}
		e.ID = id.String()
	}
	if err := e.setData(data); err != nil {
		return nil, err
	}
	if err := e.Validate(); err != nil {
		return nil, err
	}
	return e, nil
}

func (e *Event) setData(data any) error {
	switch d := data.(type) {
	case nil:
		return nil
	case json.RawMessage:
		e.Data = d
		e.defaultContentType(contentJSON)
	case []byte:
		e.Data = d
		e.defaultContentType("application/octet-stream")
	default:
		e.defaultContentType(contentJSON)
		if !e.IsJSON() {
			return fmt.Errorf("encode data of event type %q: %T can only be JSON, not %q: pass []byte", e.Type, data, e.DataContentType)
		}
		b, err := json.Marshal(d)
		if err != nil {
			return fmt.Errorf("encode data of event type %q: %w", e.Type, err)
		}
		e.Data = b
	}
	return nil
}

func (e *Event) defaultContentType(t string) {
	if e.DataContentType == "" {
		e.DataContentType = t
	}
}

// Option sets an attribute of an event made by [New].
type Option func(*Event)

// ID sets the id, for a source that has ids of its own: the same id from the same source is stored once.
func ID(id string) Option { return func(e *Event) { e.ID = id } }

// Subject sets what the event is about.
func Subject(s string) Option { return func(e *Event) { e.Subject = s } }

// At sets when it happened; the default is now.
func At(t time.Time) Option { return func(e *Event) { e.Time = t } }

// ContentType sets the media type of the data.
func ContentType(mediaType string) Option { return func(e *Event) { e.DataContentType = mediaType } }

// Schema sets the absolute URI of the data's schema.
func Schema(uri string) Option { return func(e *Event) { e.DataSchema = uri } }

// Extension sets an extension attribute. Integers, times, URLs and bytes become the CloudEvents form of their type.
func Extension(name string, value any) Option {
	return func(e *Event) {
		if e.Extensions == nil {
			e.Extensions = make(map[string]any)
		}
		e.Extensions[name] = canonicalExtension(value)
	}
}

// canonicalExtension returns value as string, bool or int32; what has no such form is left for Validate to report.
func canonicalExtension(value any) any {
	switch v := value.(type) {
	case int:
		if v >= math.MinInt32 && v <= math.MaxInt32 {
			return int32(v)
		}
	case int64:
		if v >= math.MinInt32 && v <= math.MaxInt32 {
			return int32(v)
		}
	case time.Time:
		return v.Format(time.RFC3339Nano)
	case *url.URL:
		return v.String()
	case []byte:
		return encodeBase64(v)
	case fmt.Stringer:
		return v.String()
	}
	return value
}

// IsJSON reports whether Data is a JSON text: the content type is absent, application/json, text/json or ends in +json.
func (e *Event) IsJSON() bool { return isJSON(e.DataContentType) }

func isJSON(contentType string) bool {
	if contentType == "" || contentType == contentJSON {
		return true
	}
	t, _, err := mime.ParseMediaType(contentType)
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		return false
	}
	return t == contentJSON || t == "text/json" || strings.HasSuffix(t, "+json")
}

// DataAs decodes JSON data into v.
func (e *Event) DataAs(v any) error {
	if !e.IsJSON() {
		return fmt.Errorf("decode data of event %s: it is %q, not JSON", e.ID, e.DataContentType)
	}
	if err := json.Unmarshal(e.Data, v); err != nil {
		return fmt.Errorf("decode data of event %s: %w", e.ID, err)
	}
	return nil
}
