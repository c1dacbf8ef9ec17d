package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/internal/problem"
)

// eventMode is how a request carries events, by the HTTP binding of CloudEvents.
type eventMode int

const (
	structured eventMode = iota
	batched
	binary
)

// modeOf tells the mode of a request, or why it has none.
func modeOf(h http.Header) (eventMode, *problem.Problem) {
	given := h.Get("Content-Type")
	media, _, err := mime.ParseMediaType(given)
	switch {
	case err == nil && media == mediaStructured:
		return structured, nil
	case err == nil && media == mediaBatch:
		return batched, nil
	case err == nil && strings.HasPrefix(media, mediaEvents):
		return 0, problem.Of(http.StatusUnsupportedMediaType, "events are taken in their JSON form: send "+mediaStructured+" or "+mediaBatch,
			problem.Fault{Header: "Content-Type", Detail: "no other form of CloudEvents is read"})
	case given != "" && err != nil:
		return 0, problem.Of(http.StatusUnsupportedMediaType, "the Content-Type can't be read",
			problem.Fault{Header: "Content-Type", Detail: "it is no media type"})
	}
	for name := range h {
		if _, ok := attributeOf(name); ok {
			return binary, nil
		}
	}
	return 0, problem.Of(http.StatusUnsupportedMediaType, "it is no CloudEvent: send "+mediaStructured+" or "+mediaBatch+
		", or the attributes as headers such as ce-type, and the data as the body", problem.Fault{Header: "Content-Type", Detail: "it says something else"})
}

// attributeOf is the attribute that a header carries in binary mode.
func attributeOf(header string) (string, bool) {
	if len(header) < 3 || !strings.EqualFold(header[:3], "ce-") {
		return "", false
	}
	return strings.ToLower(header[3:]), true
}

// decodeStructured reads an event in its JSON form. Faults are told below at, a path in the body.
func decodeStructured(body []byte, at string, newID func() string) (*events.Event, *problem.Problem) {
	e, err := events.DecodeNew(body, newID)
	if err != nil {
		status := http.StatusUnprocessableEntity
		if !json.Valid(body) {
			status = http.StatusBadRequest
		}
		return nil, refusal(status, eventFaults(err, func(attribute string) problem.Fault { return problem.Fault{Pointer: pointer(under(at, attribute))} }))
	}
	if p := reserved(e, func() problem.Fault { return problem.Fault{Pointer: pointer(under(at, events.ExtensionReplayTrigger))} }); p != nil {
		return nil, p
	}
	return e, nil
}

// eventFaults tells each fault of an event, at the place of its attribute.
func eventFaults(err error, place func(attribute string) problem.Fault) []problem.Fault {
	var faults []problem.Fault
	for _, text := range events.Faults(err) {
		attribute, detail, named := strings.Cut(text, ": ")
		if !named || strings.ContainsAny(attribute, " \"") {
			attribute, detail = "", text
		}
		f := place(attribute)
		f.Detail = detail
		faults = append(faults, f)
	}
	return faults
}

func under(at, attribute string) string {
	if attribute == "" {
		return at
	}
	return at + "." + attribute
}

// reserved refuses what replays alone may say: any publisher could hide its events from triggers with it.
func reserved(e *events.Event, place func() problem.Fault) *problem.Problem {
	if _, ok := e.Extensions[events.ExtensionReplayTrigger]; !ok {
		return nil
	}
	at := place()
	at.Detail = "this extension is for replays: see POST /v1/events/replay"
	return refusal(http.StatusUnprocessableEntity, []problem.Fault{at})
}

// decodeBinary reads an event whose attributes are headers and whose data is the body.
func decodeBinary(h http.Header, body []byte, newID func() string) (*events.Event, *problem.Problem) {
	e := &events.Event{DataContentType: h.Get("Content-Type")}
	if len(body) > 0 {
		e.Data = body
	}
	var faults []problem.Fault
	for _, name := range sortedNames(h) {
		attribute, ok := attributeOf(name)
		if !ok {
			continue
		}
		if fault := setAttribute(e, attribute, h[name]); fault != "" {
			faults = append(faults, problem.Fault{Header: "ce-" + attribute, Detail: fault})
		}
	}
	if len(faults) > 0 {
		return nil, refusal(http.StatusUnprocessableEntity, faults)
	}
	if e.SpecVersion == "" {
		faults = append(faults, problem.Fault{Header: "ce-specversion", Detail: "is missing: it is " + events.SpecVersion})
	}
	if _, sent := h["Ce-Id"]; !sent {
		e.ID = newID()
	}
	if err := e.Validate(); err != nil {
		faults = append(faults, eventFaults(err, func(attribute string) problem.Fault {
			switch attribute {
			case "datacontenttype":
				return problem.Fault{Header: "Content-Type"}
			case "", "data":
				return problem.Fault{Pointer: pointer("")}
			}
			return problem.Fault{Header: "ce-" + attribute}
		})...)
	}
	if len(faults) > 0 {
		return nil, refusal(http.StatusUnprocessableEntity, faults)
	}
	if p := reserved(e, func() problem.Fault { return problem.Fault{Header: "ce-" + events.ExtensionReplayTrigger} }); p != nil {
		return nil, p
	}
	return e, nil
}

func sortedNames(h http.Header) []string {
	names := make([]string, 0, len(h))
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// setAttribute takes an attribute from its header, and tells what is wrong with it.
func setAttribute(e *events.Event, name string, values []string) (fault string) {
	if len(values) != 1 {
		return fmt.Sprintf("is there %d times", len(values))
	}
	value, fault := headerValue(values[0])
	if fault != "" {
		return fault
	}
	switch name {
	case "specversion":
		e.SpecVersion = value
	case "id":
		e.ID = value
	case "source":
		e.Source = value
	case "type":
		e.Type = value
	case "subject":
		e.Subject = value
	case "dataschema":
		e.DataSchema = value
	case "time":
		t, err := time.Parse(time.RFC3339Nano, strings.ToUpper(value))
		if err != nil {
			return "is not an RFC 3339 time"
		}
		e.Time = t
	case "datacontenttype":
		return "is the Content-Type, in binary mode"
	default:
		if e.Extensions == nil {
			e.Extensions = make(map[string]any)
		}
		e.Extensions[name] = value
	}
	return ""
}

// headerValue undoes what the HTTP binding does to values that a header can't hold: percent-encoding, and older senders' quotes.
func headerValue(s string) (value, fault string) {
	if n := len(s); n >= 2 && s[0] == '"' && s[n-1] == '"' {
		var b strings.Builder
		for i := 1; i < n-1; i++ {
			if s[i] == '\\' && i+1 < n-1 {
				i++
			}
			b.WriteByte(s[i])
		}
		s = b.String()
	}
	if !strings.Contains(s, "%") {
		if !utf8.ValidString(s) {
			return "", "is not UTF-8: percent-encode it"
		}
		return s, ""
	}
	value, err := url.PathUnescape(s)
	if err != nil || !utf8.ValidString(value) {
		return "", "is not percent-encoded UTF-8: a percent sign is %25"
	}
	return value, ""
}

// splitEvents takes a batch apart: an event that can't be read does not decide for its neighbours.
func splitEvents(body []byte, most int) ([]json.RawMessage, *problem.Problem) {
	items, more, err := splitList(body, most)
	if broken, ok := errors.AsType[*json.SyntaxError](json.Unmarshal(body, &struct{}{})); ok { // of the whole, also behind what was taken
		err = broken
	}
	if err != nil {
		return nil, refusal(http.StatusBadRequest, []problem.Fault{{Pointer: pointer(""), Detail: "it must be a JSON array of events: " + err.Error()}})
	}
	if more {
		return nil, refusal(http.StatusUnprocessableEntity, []problem.Fault{{
			Pointer: pointer(""), Detail: fmt.Sprintf("it has more than %d events, the most that are taken at once: send several batches", most),
		}})
	}
	return items, nil
}
