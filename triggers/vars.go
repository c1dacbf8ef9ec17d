package triggers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"unicode/utf8"

	"cel.dev/cel-go/cel"

	"github.com/bellhop-dev/bellhop/events"
)

// attributes are the members of the variable event that CloudEvents names, with their types in expressions. An optional
// one that the event doesn't have is absent, as an unknown field of its data is: has(event.subject) tells.
var attributes = map[string]*cel.Type{
	"id":              cel.StringType,
	"source":          cel.StringType,
	"type":            cel.StringType,
	"specversion":     cel.StringType,
	"subject":         cel.StringType,
	"datacontenttype": cel.StringType,
	"dataschema":      cel.StringType,
	"time":            cel.TimestampType,
	"data":            cel.DynType,
}

var attributeNames = []string{"id", "source", "type", "subject", "time", "data", "datacontenttype", "dataschema", "specversion"}

// eventVars are what expressions see of one event. The data is decoded when the first expression asks for it.
type eventVars struct {
	event *events.Event

	decoded bool
	data    any
	fault   error

	all map[string]any
}

func newEventVars(e *events.Event) *eventVars { return &eventVars{event: e} }

// Parent is for cel: there is no wider scope.
func (v *eventVars) Parent() cel.Activation { return nil }

// ResolveName is for cel: the value of "event" or of "event.<attribute>".
func (v *eventVars) ResolveName(name string) (any, bool) {
	if name == "event" {
		return v.everything(), true
	}
	const prefix = "event."
	if len(name) <= len(prefix) || name[:len(prefix)] != prefix {
		return nil, false
	}
	return v.attribute(name[len(prefix):])
}

func (v *eventVars) attribute(name string) (any, bool) {
	e := v.event
	switch name {
	case "id":
		return e.ID, true
	case "source":
		return e.Source, true
	case "type":
		return e.Type, true
	case "specversion":
		return events.SpecVersion, true
	case "subject":
		return e.Subject, e.Subject != ""
	case "datacontenttype":
		return e.DataContentType, e.DataContentType != ""
	case "dataschema":
		return e.DataSchema, e.DataSchema != ""
	case "time":
		return e.Time, !e.Time.IsZero()
	case "data":
		v.decode()
		return v.data, e.Data != nil
	}
	return nil, false
}

// everything is the event as a map, for event["name"], extensions and has().
func (v *eventVars) everything() map[string]any {
	if v.all != nil {
		return v.all
	}
	v.all = make(map[string]any, len(attributes)+len(v.event.Extensions))
	maps.Copy(v.all, v.event.Extensions)
	for name := range attributes {
		if value, there := v.attribute(name); there {
			v.all[name] = value
		}
	}
	return v.all
}

// decode reads JSON data with its numbers as they are written; other data is a string, or bytes where it isn't UTF-8.
func (v *eventVars) decode() {
	if v.decoded || v.event.Data == nil {
		return
	}
	v.decoded = true
	if !v.event.IsJSON() {
		if utf8.Valid(v.event.Data) {
			v.data = string(v.event.Data)
		} else {
			v.data = v.event.Data
		}
		return
	}
	if v.data, v.fault = decodeJSON(v.event.Data); v.fault != nil {
		v.fault = fmt.Errorf("data of the event: %w", v.fault)
	}
}

func decodeJSON(data []byte) (value any, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&value); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("not JSON: more follows after the first value")
	}
	return value, nil
}

// payload is the event's data as it is, for triggers without a mapping.
func (v *eventVars) payload(limit int) ([]byte, error) {
	switch data := v.event.Data; {
	case data == nil:
		return []byte("null"), nil
	case len(data) > limit:
		return nil, tooLargeError(limit)
	case v.event.IsJSON():
		return data, nil
	}
	v.decode()
	out := &output{limit: limit}
	err := out.native(v.data)
	return out.buf, err
}
