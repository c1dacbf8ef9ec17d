package webhook

import (
	"bytes"
	"encoding/json"
	"mime"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"
)

// maxDepth is far beyond what a provider nests, and far below what hurts whoever reads the event later.
const maxDepth = 500

// object is a JSON object whose members are read when they are asked for. Names count to the letter, as encoding/json's do not.
type object map[string]json.RawMessage

// readJSON returns the body as data of an event, and as an object if it is one.
func readJSON(body []byte) (data []byte, o object, err error) {
	data = bytes.TrimSpace(body)
	if !utf8.Valid(data) {
		data = bytes.ToValidUTF8(data, []byte("\uFFFD"))
	}
	if tooDeep(data) {
		return nil, nil, refuse(Malformed, "the body's JSON is nested too deeply")
	}
	if len(data) > 0 && data[0] == '{' {
		err = json.Unmarshal(data, &o)
	} else if !json.Valid(data) {
		err = refuse(Malformed, "")
	}
	if err != nil {
		return nil, nil, refuse(Malformed, "the body is not JSON")
	}
	return data, o, nil
}

// readObject is readJSON for a provider that sends nothing but objects.
func readObject(body []byte) ([]byte, object, error) {
	data, o, err := readJSON(body)
	if err == nil && o == nil {
		err = refuse(Malformed, "the body is JSON, but no object")
	}
	return data, o, err
}

// tooDeep counts brackets outside of strings.
func tooDeep(b []byte) bool {
	depth, inText := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inText && c == '\\':
			i++
		case c == '"':
			inText = !inText
		case inText:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

// in is the object at the path; nil, which has no members, if there is none.
func (o object) in(path ...string) object {
	for _, name := range path {
		var next object
		if raw := o[name]; len(raw) == 0 || raw[0] != '{' || json.Unmarshal(raw, &next) != nil {
			return nil
		}
		o = next
	}
	return o
}

// text is the text, number or truth value at the path, as text.
func (o object) text(path ...string) string {
	last := len(path) - 1
	raw := o.in(path[:last]...)[path[last]]
	switch {
	case len(raw) == 0 || raw[0] == '{' || raw[0] == '[' || raw[0] == 'n':
		return ""
	case raw[0] != '"':
		return string(raw)
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// at is text at a path with dots.
func (o object) at(path string) string {
	if path == "" {
		return ""
	}
	return o.text(strings.Split(path, ".")...)
}

// without returns the object's text without one of its members, the others in their order.
func without(data []byte, member string) []byte {
	decoder := json.NewDecoder(bytes.NewReader(data))
	out := make([]byte, 0, len(data))
	if _, err := decoder.Token(); err != nil {
		return data
	}
	out = append(out, '{')
	for decoder.More() {
		var value json.RawMessage
		name, err := decoder.Token()
		if err != nil || decoder.Decode(&value) != nil {
			return data
		}
		if name == member {
			continue
		}
		label, err := json.Marshal(name)
		if err != nil {
			return data
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(append(out, label...), ':'), value...)
	}
	return append(out, '}')
}

const formType = "application/x-www-form-urlencoded"

// mediaType is the type of the body, without its parameters.
func (d *delivery) mediaType() string {
	value := d.header.Get("Content-Type")
	t, _, err := mime.ParseMediaType(value)
	if err != nil {
		t, _, _ = strings.Cut(value, ";")
	}
	return strings.ToLower(strings.TrimSpace(t))
}

func isJSON(mediaType string) bool {
	return mediaType == "application/json" || mediaType == "text/json" || strings.HasSuffix(mediaType, "+json")
}

// readForm reads a body of pairs.
func readForm(body []byte) (url.Values, error) {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, refuse(Malformed, "the body is no form")
	}
	return form, nil
}

// formJSON makes of a form an object of texts; a name that is there several times has a list of them.
func formJSON(form url.Values) ([]byte, error) {
	flat := make(map[string]any, len(form))
	for name, values := range form {
		if len(values) == 1 {
			flat[name] = values[0]
		} else {
			flat[name] = values
		}
	}
	b, err := json.Marshal(flat)
	if err != nil {
		return nil, refuse(Malformed, "the form has no JSON")
	}
	return b, nil
}

// clean makes text fit for an attribute: what CloudEvents forbids becomes a space, and it ends at so many bytes.
func clean(s string, most int) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r <= 0x9f || r&0xfffe == 0xfffe || r >= 0xfdd0 && r <= 0xfdef {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD")))
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}

// typeOf makes of a provider's name of what happened the segments of a type: "orders/create" is orders.create.
func typeOf(name string) string {
	segments := strings.FieldsFunc(cut(name, 250), func(r rune) bool { return r == '.' || r == '/' || r == ':' || r == ' ' })
	for i, s := range segments {
		segments[i] = strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' {
				return r
			}
			return '_'
		}, s)
	}
	return strings.Join(segments, ".")
}

// eventID is the provider's id of a delivery, if it can be one.
func eventID(id string) (string, error) {
	if id == "" || len(id) > 256 || strings.TrimFunc(id, func(r rune) bool { return r > ' ' && r < 0x7f }) != "" {
		return "", refuse(Malformed, "the delivery's id is missing, longer than 256 bytes, or has other characters than visible ones of ASCII")
	}
	return id, nil
}

// readTime reads RFC 3339, or seconds or milliseconds since 1970; zero for anything else.
func readTime(text string) time.Time {
	if n, ok := wholeNumber(text); ok {
		if n >= 1e11 { // as seconds, a year beyond 5000
			return time.UnixMilli(n).UTC()
		}
		return time.Unix(n, 0).UTC()
	}
	t, err := time.Parse(time.RFC3339Nano, strings.ToUpper(text))
	if err != nil || t.Year() < 1 || t.Year() > 9999 {
		return time.Time{}
	}
	return t
}
