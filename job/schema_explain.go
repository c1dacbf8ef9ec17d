package job

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"

	"github.com/bellhop-dev/bellhop/internal/suggest"
)

// explain turns the validator's answer, which speaks of places in the schema, into one that names the payload's fields, and all
// that are wrong.
func (s Schema) explain(value any, err error) string {
	var e explainer
	e.look(s.schema, value, "")
	switch {
	case len(e.faults) == 0: // it is none that a Go type leads to
		return strings.TrimPrefix(err.Error(), "validating root: ")
	case len(e.faults) > mostTold:
		e.faults = append(e.faults[:mostTold], "and more")
	}
	return strings.Join(e.faults, "; ")
}

// The bounds on what is told of a payload. Of its texts, only those are shown that should be one of a few.
const (
	mostTold   = 10
	mostOfText = 40
)

type explainer struct{ faults []string }

func (e *explainer) fault(format string, args ...any) {
	e.faults = append(e.faults, fmt.Sprintf(format, args...))
}

func (e *explainer) look(s *jsonschema.Schema, value any, path string) {
	if s == nil || len(e.faults) > mostTold {
		return
	}
	kind := kindOf(value)
	if kind == "" || !takes(s, kind) {
		if kind != "" {
			e.fault("%s is %s, want %s", called(path), inWords(kind), wanted(s))
		}
		return
	}
	switch v := value.(type) {
	case string:
		e.text(s, v, path)
	case float64:
		switch {
		case s.Minimum != nil && v < *s.Minimum:
			e.fault("%s is %v, want at least %v", called(path), v, *s.Minimum)
		case s.Maximum != nil && v > *s.Maximum:
			e.fault("%s is %v, want at most %v", called(path), v, *s.Maximum)
		}
	case []any:
		for i, item := range v {
			e.look(s.Items, item, fmt.Sprintf("%s[%d]", path, i))
		}
	case map[string]any:
		e.object(s, v, path)
	}
}

func (e *explainer) text(s *jsonschema.Schema, text, path string) {
	switch {
	case len(s.Enum) > 0 && !slices.Contains(s.Enum, any(text)):
		choice := make([]string, len(s.Enum))
		for i, allowed := range s.Enum {
			choice[i] = "null"
			if allowed != nil {
				choice[i] = fmt.Sprintf("%q", allowed)
			}
		}
		e.fault("%s is %q, want %s", called(path), cut(text), suggest.OneOf(choice))
	case s.Pattern != "":
		if matches, err := regexp.MatchString(s.Pattern, text); err == nil && !matches {
			e.fault("%s does not match %s", called(path), s.Pattern)
		}
	}
}

func (e *explainer) object(s *jsonschema.Schema, object map[string]any, path string) {
	names := slices.Sorted(maps.Keys(object))
	closed := len(s.Properties) > 0 && s.AdditionalProperties != nil
	for _, name := range names {
		if _, known := s.Properties[name]; !known && closed && len(e.faults) <= mostTold {
			e.fault("no field %q (it has %s)", within(path, name), strings.Join(fieldsOf(s), ", "))
		}
	}
	for _, name := range s.Required {
		if _, there := object[name]; !there {
			e.fault("field %q is missing", within(path, name))
		}
	}
	for _, name := range names {
		property, known := s.Properties[name]
		if !known && !closed {
			property = s.AdditionalProperties
		}
		e.look(property, object[name], within(path, name))
	}
}

func within(path, name string) string {
	if path == "" {
		return cut(name)
	}
	return path + "." + cut(name)
}

func called(path string) string {
	switch {
	case path == "":
		return "it"
	case strings.HasPrefix(path, "["):
		return "item " + path
	}
	return fmt.Sprintf("field %q", path)
}

func cut(s string) string {
	if len(s) <= mostOfText {
		return s
	}
	return strings.ToValidUTF8(s[:mostOfText], "") + "..."
}

// kindOf is the type that JSON Schema gives to a decoded value; "" if it is none.
func kindOf(value any) string {
	switch v := value.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case float64:
		if v == math.Trunc(v) {
			return "integer"
		}
		return "number"
	case json.Number:
		f, err := v.Float64()
		if err != nil {
			return "number"
		}
		return kindOf(f)
	case []any:
		return "array"
	case map[string]any:
		return "object"
	}
	return ""
}

func takes(s *jsonschema.Schema, kind string) bool {
	known := kinds(s)
	return len(known) == 0 || slices.Contains(known, kind) || kind == "integer" && slices.Contains(known, "number")
}

// inWords says what a value is.
func inWords(kind string) string {
	switch kind {
	case "null":
		return "null"
	case "integer":
		return "a number"
	case "number":
		return "a number with a fraction"
	case "array", "object":
		return "an " + kind
	}
	return "a " + kind
}

// wanted says what a value should be; null, which is only allowed, comes last.
func wanted(s *jsonschema.Schema) string {
	var words []string
	null := false
	for _, kind := range kinds(s) {
		switch kind {
		case "null":
			null = true
		case "integer":
			words = append(words, "a whole number")
		case "number":
			words = append(words, "a number")
		default:
			words = append(words, inWords(kind))
		}
	}
	if null {
		words = append(words, "null")
	}
	return suggest.OneOf(words)
}
