package webhook

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// maxDepth is far beyond what a provider nests, and far below what hurts whoever reads the event later.
const maxDepth = 500

// object is a JSON object whose members were found, and not decoded: a delivery has hundreds of them and we ask for five. Whether what
// stands in them is JSON throughout is seen when the event is published. Names count to the letter, as encoding/json's do not.
type object []member

type member struct {
	name  string
	value []byte
}

// scanObject finds the members of the text, which begins with a brace; false if it is no object.
func scanObject(text []byte) (object, bool) {
	o := make(object, 0, 32)
	at := skipSpace(text, 1)
	if at < len(text) && text[at] == '}' {
		return o, skipSpace(text, at+1) == len(text)
	}
	for at < len(text) {
		nameEnd := skipValue(text, at, 1)
		if nameEnd < 0 || text[at] != '"' {
			return nil, false
		}
		name, ok := textOf(text[at:nameEnd])
		colon := skipSpace(text, nameEnd)
		if !ok || colon >= len(text) || text[colon] != ':' {
			return nil, false
		}
		begin := skipSpace(text, colon+1)
		end := skipValue(text, begin, maxDepth-1)
		if end < 0 {
			return nil, false
		}
		o = append(o, member{name, text[begin:end]})
		at = skipSpace(text, end)
		if at >= len(text) {
			return nil, false
		}
		switch text[at] {
		case ',':
			at = skipSpace(text, at+1)
		case '}':
			return o, skipSpace(text, at+1) == len(text)
		default:
			return nil, false
		}
	}
	return nil, false
}

func skipSpace(text []byte, at int) int {
	for at < len(text) && (text[at] == ' ' || text[at] == '\n' || text[at] == '\t' || text[at] == '\r') {
		at++
	}
	return at
}

// skipValue returns the index after the value that begins at an index, -1 if it has no end or is nested deeper than allowed.
func skipValue(text []byte, at, depth int) int {
	if at >= len(text) {
		return -1
	}
	switch text[at] {
	case '"':
		return skipText(text, at)
	case '{', '[':
		return skipNested(text, at, depth)
	}
	begin := at
	for at < len(text) && !strings.ContainsRune(",:]} \n\t\r", rune(text[at])) {
		at++
	}
	if at == begin {
		return -1
	}
	return at
}

// skipText takes the text's end for found where no odd number of backslashes stands before a quote.
func skipText(text []byte, at int) int {
	for begin := at + 1; ; {
		n := bytes.IndexByte(text[begin:], '"')
		if n < 0 {
			return -1
		}
		quote := begin + n
		slashes := 0
		for quote-slashes-1 > at && text[quote-slashes-1] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return quote + 1
		}
		begin = quote + 1
	}
}

func skipNested(text []byte, at, most int) int {
	depth := 0
	for at < len(text) {
		switch text[at] {
		case '"':
			if at = skipText(text, at); at < 0 {
				return -1
			}
			continue
		case '{', '[':
			if depth++; depth > most {
				return -1
			}
		case '}', ']':
			if depth--; depth == 0 {
				return at + 1
			}
		}
		at++
	}
	return -1
}

// get is the text of a member's value. Of two members with one name it is the last, as it is for encoding/json.
func (o object) get(name string) []byte {
	for _, m := range slices.Backward(o) {
		if m.name == name {
			return m.value
		}
	}
	return nil
}

// in is the object at the path; nil, which has no members, if there is none.
func (o object) in(path ...string) object {
	for _, name := range path {
		value := o.get(name)
		if len(value) == 0 || value[0] != '{' {
			return nil
		}
		o, _ = scanObject(value)
	}
	return o
}

// text is the text, number or truth value at the path, as text.
func (o object) text(path ...string) string {
	last := len(path) - 1
	value := o.in(path[:last]...).get(path[last])
	switch {
	case len(value) == 0 || value[0] == '{' || value[0] == '[' || value[0] == 'n':
		return ""
	case value[0] != '"':
		return string(value)
	}
	s, _ := textOf(value)
	return s
}

// at is text at a path with dots.
func (o object) at(path string) string {
	if path == "" {
		return ""
	}
	return o.text(strings.Split(path, ".")...)
}

// textOf decodes a JSON text with its quotes.
func textOf(value []byte) (string, bool) {
	if len(value) >= 2 && bytes.IndexByte(value, '\\') < 0 {
		return string(value[1 : len(value)-1]), true
	}
	var s string
	err := json.Unmarshal(value, &s)
	return s, err == nil
}

// without returns the object's text without one of its members, the others in their order.
func (o object) without(name string) ([]byte, error) {
	out := []byte{'{'}
	for _, m := range o {
		if m.name == name {
			continue
		}
		label, err := json.Marshal(m.name)
		if err != nil {
			return nil, refuse(Malformed, "a name in the body has no JSON")
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(append(out, label...), ':'), m.value...)
	}
	return append(out, '}'), nil
}
