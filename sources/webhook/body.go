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

// readJSON returns the body as data of an event, and as an object if it is one.
func readJSON(body []byte) (data []byte, o object, err error) {
	data = bytes.TrimSpace(body)
	if !utf8.Valid(data) {
		data = bytes.ToValidUTF8(data, []byte("\uFFFD"))
	}
	var ok bool
	if len(data) > 0 && data[0] == '{' {
		o, ok = scanObject(data)
	} else {
		ok = skipValue(data, 0, maxDepth) == len(data)
	}
	if !ok {
		return nil, nil, refuse(Malformed, "the body is not JSON, or is nested too deeply")
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
