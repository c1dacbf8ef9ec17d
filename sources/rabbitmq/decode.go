package rabbitmq

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"mime"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/bellhop-dev/bellhop/events"
)

// Content types of CloudEvents in structured mode, and the prefixes of its attributes among the headers in binary mode: the AMQP
// binding of CloudEvents names both, the second for clients that can't write a colon.
const (
	structuredType = "application/cloudevents"
	batchType      = "application/cloudevents-batch"
	colonPrefix    = "cloudEvents:"
	scorePrefix    = "cloudEvents_"
)

// decode makes an event of the message: a CloudEvent as it is, anything else by the mapping. An error says what is wrong with the
// message, for whoever finds it in the dead-letter queue. With derived, the event's id was made from the content.
func (c compiledMapping) decode(m *message, queue string) (e *events.Event, derived bool, err error) {
	e, derived, err = c.eventOf(m, queue)
	if err == nil && e.Extensions[events.ExtensionReplayTrigger] != nil {
		return nil, false, fmt.Errorf("%s: this extension is for replays, which name the one trigger that shall see the event", events.ExtensionReplayTrigger)
	}
	return e, derived, err
}

func (c compiledMapping) eventOf(m *message, queue string) (e *events.Event, derived bool, err error) {
	if enc := strings.ToLower(m.ContentEncoding); !slices.Contains(plainEncodings, enc) {
		return nil, false, fmt.Errorf("content_encoding is %.40q: send the body as it is", m.ContentEncoding)
	}
	switch mediaType, params, err := mime.ParseMediaType(m.ContentType); {
	case err == nil && strings.HasPrefix(mediaType, structuredType):
		e, err := structured(mediaType, params, m.Body)
		return e, false, err
	case hasAttributes(m.Headers):
		e, err := binary(m)
		return e, false, err
	default:
		return c.plain(m, queue)
	}
}

// plainEncodings change nothing of a body; the last is what some clients call its charset.
var plainEncodings = []string{"", "identity", "binary", "8bit", "7bit", "utf-8", "utf8"}

func structured(mediaType string, params map[string]string, body []byte) (*events.Event, error) {
	switch {
	case strings.HasPrefix(mediaType, batchType):
		return nil, errors.New("is a batch of CloudEvents: send each as a message of its own")
	case mediaType != structuredType && mediaType != structuredType+"+json":
		return nil, fmt.Errorf("is a CloudEvent as %.80q: send %s+json", mediaType, structuredType)
	}
	if charset := strings.ToLower(params["charset"]); charset != "" && charset != "utf-8" && charset != "us-ascii" {
		return nil, fmt.Errorf("charset is %.40q: send UTF-8", charset)
	}
	e, err := events.Decode(body)
	if err != nil {
		return nil, fmt.Errorf("read the CloudEvent: %w", err)
	}
	return e, nil
}

func hasAttributes(headers amqp.Table) bool {
	for name := range headers {
		if _, is := attributeName(name); is {
			return true
		}
	}
	return false
}

func attributeName(header string) (name string, is bool) {
	if name, is = strings.CutPrefix(header, colonPrefix); is {
		return name, true
	}
	return strings.CutPrefix(header, scorePrefix)
}

func binary(m *message) (*events.Event, error) {
	e := &events.Event{DataContentType: m.ContentType}
	var faults []error
	seen := make(map[string]bool)
	for header, value := range m.Headers {
		name, is := attributeName(header)
		if !is {
			continue
		}
		if seen[name] {
			faults = append(faults, fmt.Errorf("%.80s: is there twice, as %s and as %s", name, colonPrefix, scorePrefix))
		}
		seen[name] = true
		if err := setAttribute(e, name, value); err != nil {
			faults = append(faults, fmt.Errorf("%.80s: %w", name, err))
		}
	}
	if e.SpecVersion == "" {
		faults = append(faults, errors.New("specversion: is missing"))
	}
	if len(m.Body) > 0 {
		e.Data = m.Body
		if e.DataContentType == "" && !json.Valid(m.Body) {
			e.DataContentType = guessType(m.Body)
		}
	}
	if err := e.Validate(); err != nil {
		faults = append(faults, err)
	}
	if len(faults) > 0 {
		slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
		return nil, fmt.Errorf("read the CloudEvent's headers: %w", errors.Join(faults...))
	}
	return e, nil
}

func setAttribute(e *events.Event, name string, value any) error {
	text, ok := attribute(value)
	if !ok {
		return fmt.Errorf("a header of type %T is no attribute", value)
	}
	switch name {
	case "specversion":
		e.SpecVersion = text
	case "id":
		e.ID = text
	case "source":
		e.Source = text
	case "type":
		e.Type = text
	case "subject":
		e.Subject = text
	case "dataschema":
		e.DataSchema = text
	case "datacontenttype":
		return errors.New("belongs into the property content_type")
	case "time":
		at, err := time.Parse(time.RFC3339Nano, strings.ToUpper(text))
		if err != nil {
			return fmt.Errorf("%.60q is not an RFC 3339 time", text)
		}
		e.Time = at
	default:
		events.Extension(name, extension(value, text))(e)
	}
	return nil
}

// attribute is the text of a header's value; false for lists, tables and what else CloudEvents has no type for.
func attribute(value any) (text string, ok bool) {
	switch v := value.(type) {
	case string:
		return v, true
	case []byte:
		return base64.StdEncoding.EncodeToString(v), true
	case bool:
		return strconv.FormatBool(v), true
	case time.Time:
		if !tellable(v) {
			return "", false
		}
		return v.UTC().Format(time.RFC3339Nano), true
	case int8, int16, int32, int64, int, byte, uint16, uint32, uint64, uint:
		return fmt.Sprint(v), true
	case float32, float64:
		return fmt.Sprint(v), true
	}
	return "", false
}

// extension keeps the types that CloudEvents has: what is larger than an integer of 32 bits becomes its text.
func extension(value any, text string) any {
	if b, is := value.(bool); is {
		return b
	}
	switch value.(type) {
	case string, []byte, time.Time, float32, float64:
		return text
	}
	if n, err := strconv.ParseInt(text, 10, 32); err == nil {
		return int32(n)
	}
	return text
}

// lastSecond is the end of the year 9999: a timestamp of AMQP goes on, RFC 3339 does not.
const lastSecond = 253402300799

func tellable(t time.Time) bool {
	return t.Unix() > 0 && t.Unix() <= lastSecond
}

func (c compiledMapping) plain(m *message, queue string) (*events.Event, bool, error) {
	e := &events.Event{SpecVersion: events.SpecVersion, DataContentType: m.ContentType}
	e.Type, _ = c.typ.fill(m, queue)
	e.Type = cmp.Or(e.Type, DefaultType)
	e.Source, _ = c.source.fill(m, queue)
	e.Subject, _ = c.subject.fill(m, queue)
	id, derived := c.id.fill(m, queue)
	e.ID = id
	if tellable(m.Timestamp) {
		e.Time = m.Timestamp.UTC()
	}
	if len(m.Body) > 0 {
		e.Data = m.Body
	}
	if t, _, err := mime.ParseMediaType(m.ContentType); err != nil || !strings.Contains(t, "/") {
		e.DataContentType = guessType(m.Body)
	}
	if err := e.Validate(); err != nil {
		return nil, false, fmt.Errorf("make an event of the message: %w", err)
	}
	return e, derived, nil
}

// guessType is for senders that don't tell.
func guessType(body []byte) string {
	switch {
	case len(body) == 0:
		return ""
	case json.Valid(body):
		return "application/json"
	case utf8.Valid(body):
		return "text/plain; charset=utf-8"
	default:
		return "application/octet-stream"
	}
}

// digest is the same whenever the message is delivered, also after the broker has dead-lettered it and somebody sent it back.
func (m *message) digest() string {
	h := sha256.New()
	for _, s := range []string{
		m.Exchange, m.RoutingKey, m.ContentType, m.ContentEncoding, m.CorrelationId, m.ReplyTo, m.Type, m.UserId, m.AppId,
		strconv.FormatInt(m.Timestamp.Unix(), 10),
	} {
		writeField(h, s)
	}
	names := make([]string, 0, len(m.Headers))
	for name := range m.Headers {
		if !writtenByBroker(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		writeField(h, name)
		writeField(h, fmt.Sprintf("%T %v", m.Headers[name], m.Headers[name])) // fmt sorts tables
	}
	writeField(h, string(m.Body))
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// writeField keeps neighbours apart.
func writeField(h hash.Hash, s string) {
	fmt.Fprintf(h, "%d:%s", len(s), s)
}

// writtenByBroker names the headers that change from one delivery to the next.
func writtenByBroker(header string) bool {
	for _, prefix := range []string{"x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count", "x-opt-"} {
		if strings.HasPrefix(header, prefix) {
			return true
		}
	}
	return strings.HasPrefix(header, ownHeader)
}

func randomID() string { return uuid.NewString() }
