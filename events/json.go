package events

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Decode reads an event in the CloudEvents JSON format (structured mode) and validates it. Attributes that CloudEvents
// doesn't name become extensions. The error is an [ErrInvalid] and reports every fault at once.
func Decode(b []byte) (*Event, error) {
	e := new(Event)
	if err := e.UnmarshalJSON(b); err != nil {
		return nil, err
	}
	return e, nil
}

// DecodeNew is [Decode] of an event that may lack an id: newID makes it then.
func DecodeNew(b []byte, newID func() string) (*Event, error) {
	e := new(Event)
	if err := e.decode(b, newID); err != nil {
		return nil, err
	}
	return e, nil
}

// UnmarshalJSON is [Decode] for encoding/json.
func (e *Event) UnmarshalJSON(b []byte) error { return e.decode(b, nil) }

func (e *Event) decode(b []byte, newID func() string) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil {
		return fmt.Errorf("%w: is not a JSON object: %w", ErrInvalid, err)
	}
	if members == nil {
		return fmt.Errorf("%w: is null", ErrInvalid)
	}
	d := decoder{members: members}
	got := d.event()
	if _, has := members["id"]; !has && newID != nil {
		got.ID = newID()
	}
	// The data was parsed as a part of the whole: it isn't looked at again.
	if err := invalid(append(d.faults, got.attributeFaults()...)); err != nil {
		return err
	}
	*e = got
	return nil
}

type decoder struct {
	members map[string]json.RawMessage
	faults  []error
}

func (d *decoder) event() Event {
	var e Event
	for name, raw := range d.members {
		if string(raw) == "null" && name != "data" {
			continue // unset, says the JSON format
		}
		switch name {
		case "specversion":
			e.SpecVersion = d.text(name, raw)
		case "id":
			e.ID = d.text(name, raw)
		case "source":
			e.Source = d.text(name, raw)
		case "type":
			e.Type = d.text(name, raw)
		case "subject":
			e.Subject = d.text(name, raw)
		case "datacontenttype":
			e.DataContentType = d.text(name, raw)
		case "dataschema":
			e.DataSchema = d.text(name, raw)
		case "time":
			e.Time = d.time(raw)
		case "data", "data_base64":
		default:
			if v := d.extension(name, raw); v != nil {
				if e.Extensions == nil {
					e.Extensions = make(map[string]any)
				}
				e.Extensions[name] = v
			}
		}
	}
	if e.SpecVersion == "" {
		d.fault("specversion: is missing")
	}
	e.Data = d.data(e.DataContentType)
	return e
}

func (d *decoder) data(contentType string) []byte {
	raw, inline := d.members["data"]
	encoded, binary := d.members["data_base64"]
	if binary && string(encoded) == "null" {
		binary = false
	}
	switch {
	case inline && binary:
		d.fault("data: data and data_base64 are both there, one is allowed")
		return nil
	case binary:
		b, err := base64.StdEncoding.DecodeString(d.text("data_base64", encoded))
		if err != nil {
			d.fault("data_base64: %w", err)
			return nil
		}
		if isJSON(contentType) && !json.Valid(b) {
			d.fault("data_base64: is not JSON, but datacontenttype is %q", contentType)
		}
		return b
	case !inline:
		return nil
	case isJSON(contentType):
		return raw
	case raw[0] == '"':
		return []byte(d.text("data", raw))
	case string(raw) == "null":
		return nil
	default:
		// A producer that put an object under text/plain meant its JSON text.
		return raw
	}
}

func (d *decoder) text(name string, raw json.RawMessage) string {
	if n := len(raw); n >= 2 && raw[0] == '"' && bytes.IndexByte(raw, '\\') < 0 && utf8.Valid(raw) {
		return string(raw[1 : n-1])
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		d.fault("%s: is not a string", name)
	}
	return s
}

func (d *decoder) time(raw json.RawMessage) time.Time {
	s := d.text("time", raw)
	// RFC 3339 allows small letters, time.Parse doesn't.
	t, err := time.Parse(time.RFC3339Nano, strings.ToUpper(s))
	if err != nil {
		d.fault("time: %q is not an RFC 3339 time", s)
		return time.Time{}
	}
	return t
}

func (d *decoder) extension(name string, raw json.RawMessage) any {
	if fault := extensionNameFault(name); fault != nil {
		d.faults = append(d.faults, fault)
		return nil
	}
	switch c := raw[0]; c {
	case '"':
		return d.text(name, raw)
	case 't', 'f':
		return c == 't'
	case '{', '[':
		d.fault("%s: is an object or a list, an extension is a string, a boolean or an integer", name)
		return nil
	}
	n, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || n != math.Trunc(n) || n < math.MinInt32 || n > math.MaxInt32 {
		d.fault("%s: %.40s is not an integer of 32 bits", name, raw)
		return nil
	}
	return int32(n)
}

func (d *decoder) fault(format string, args ...any) {
	d.faults = append(d.faults, fmt.Errorf(format, args...))
}

// MarshalJSON is [Event.AppendJSON] for encoding/json, after [Event.Validate].
func (e *Event) MarshalJSON() ([]byte, error) {
	if err := e.Validate(); err != nil {
		return nil, err
	}
	return e.AppendJSON(nil), nil
}

// AppendJSON appends the event in the CloudEvents JSON format to b. The event must be valid: see [Event.Validate].
// Data that is neither JSON nor UTF-8 goes into data_base64.
func (e *Event) AppendJSON(b []byte) []byte {
	b = slices.Grow(b, 256+len(e.Data)+len(e.Data)/8)
	b = append(b, `{"specversion":"1.0"`...)
	b = appendMember(b, "id", e.ID)
	b = appendMember(b, "source", e.Source)
	b = appendMember(b, "type", e.Type)
	if e.Subject != "" {
		b = appendMember(b, "subject", e.Subject)
	}
	if !e.Time.IsZero() {
		b = append(b, `,"time":"`...)
		b = appendTime(b, e.Time)
		b = append(b, '"')
	}
	if e.DataContentType != "" {
		b = appendMember(b, "datacontenttype", e.DataContentType)
	}
	if e.DataSchema != "" {
		b = appendMember(b, "dataschema", e.DataSchema)
	}
	b = e.appendExtensions(b)
	return append(e.appendData(b), '}')
}

// appendTime cuts the seconds off the offsets of ancient local times (+00:53:28), which RFC 3339 can't say.
func appendTime(b []byte, t time.Time) []byte {
	if _, offset := t.Zone(); offset%60 != 0 {
		t = t.UTC()
	}
	return t.AppendFormat(b, time.RFC3339Nano)
}

func (e *Event) appendExtensions(b []byte) []byte {
	if len(e.Extensions) == 0 {
		return b
	}
	names := make([]string, 0, len(e.Extensions))
	for name := range e.Extensions {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		switch v := e.Extensions[name].(type) {
		case string:
			b = appendMember(b, name, v)
		case bool:
			b = strconv.AppendBool(appendName(b, name), v)
		case int32:
			b = strconv.AppendInt(appendName(b, name), int64(v), 10)
		}
	}
	return b
}

func (e *Event) appendData(b []byte) []byte {
	switch {
	case e.Data == nil:
		return b
	case e.IsJSON():
		return append(appendName(b, "data"), e.Data...)
	case utf8.Valid(e.Data):
		return appendString(appendName(b, "data"), string(e.Data))
	default:
		b = append(appendName(b, "data_base64"), '"')
		return append(base64.StdEncoding.AppendEncode(b, e.Data), '"')
	}
}

func appendMember(b []byte, name, value string) []byte {
	return appendString(appendName(b, name), value)
}

func appendName(b []byte, name string) []byte {
	b = append(b, ',', '"')
	b = append(b, name...)
	return append(b, '"', ':')
}

func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			var buf bytes.Buffer
			enc := json.NewEncoder(&buf)
			enc.SetEscapeHTML(false)
			if err := enc.Encode(s); err != nil {
				panic(errors.New("events: a string has no JSON form")) // encoding/json knows no such string
			}
			return append(b, bytes.TrimSuffix(buf.Bytes(), []byte("\n"))...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

func encodeBase64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
