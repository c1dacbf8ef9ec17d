package handlers

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
)

const (
	maxExcerpt = 256 // bytes of a response that an error tells

	// minSecret bytes make a value worth masking; with less, every text would be full of holes.
	minSecret = 6
)

// secrets are the values of a payload that must not come back in an error: servers echo what they were sent ("Cannot POST /hooks/…",
// "invalid token …"), and errors go to logs and dashboards.
type secrets struct {
	byStart map[string][]string
	seen    map[string]struct{}
}

func newSecrets() secrets {
	return secrets{byStart: make(map[string][]string), seen: make(map[string]struct{})}
}

// secrets are gathered only when a call failed.
func (c *call) secrets() secrets {
	s := newSecrets()
	if u, err := url.Parse(strings.TrimSpace(c.payload.URL)); err == nil {
		s.addURL(u)
	}
	s.addHeaders(c.request.Header)
	if c.payload.JSON == nil {
		s.addText(c.payload.Body)
	}
	body, _ := bodyOf(c.payload) // newCall has encoded it before
	s.addJSON([]byte(body))
	return s
}

func (s secrets) addHeaders(headers http.Header) {
	for name, values := range headers {
		if !slices.Contains(harmless, name) {
			for _, value := range values {
				s.addText(value)
			}
		}
	}
}

func (s secrets) addURL(u *url.URL) {
	s.add(u.Path)
	s.add(u.EscapedPath())
	s.add(u.RawQuery)
	for segment := range strings.SplitSeq(u.Path, "/") {
		s.add(segment)
	}
	for _, values := range u.Query() {
		for _, value := range values {
			s.add(value)
			s.add(url.QueryEscape(value))
		}
	}
	if password, ok := u.User.Password(); ok {
		s.add(password)
		s.add(base64.StdEncoding.EncodeToString([]byte(u.User.Username() + ":" + password)))
	}
	s.add(u.User.Username())
}

func (s secrets) addText(text string) {
	s.add(text)
	s.addWords(text)
}

// addJSON adds the texts of a JSON value; data that is none has none.
func (s secrets) addJSON(data []byte) {
	var value any
	if json.Unmarshal(data, &value) == nil {
		s.addLeaves(value)
	}
}

// addLeaves adds an object's texts, not its field names: those are what a server's complaint is about.
func (s secrets) addLeaves(value any) {
	switch v := value.(type) {
	case string:
		s.addText(v)
	case []any:
		for _, item := range v {
			s.addLeaves(item)
		}
	case map[string]any:
		for _, item := range v {
			s.addLeaves(item)
		}
	}
}

// addWords adds what looks like a token rather than prose.
func (s secrets) addWords(text string) {
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(`=&,;:"'<>(){}[]`, r) }) {
		if len(word) >= 2*minSecret || strings.ContainsAny(word, "0123456789") {
			s.add(word)
		}
	}
}

func (s secrets) add(value string) {
	if value = strings.TrimSpace(value); len(value) < minSecret {
		return
	}
	if _, ok := s.seen[value]; !ok {
		s.seen[value] = struct{}{}
		s.byStart[value[:minSecret]] = append(s.byStart[value[:minSecret]], value)
	}
}

// mask returns about the first most bytes of a text, on one line, without the secrets. A secret that begins in those bytes is looked for in the
// whole text, so that none is told in part.
func (s secrets) mask(text string, most int) string {
	var out strings.Builder
	i := 0
	for i < len(text) && i < most {
		if n := s.at(text[i:]); n > 0 {
			out.WriteString("[masked]")
			i += n
			continue
		}
		out.WriteByte(text[i])
		i++
	}
	told := strings.Join(strings.FieldsFunc(strings.ToValidUTF8(out.String(), "?"), func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r)
	}), " ")
	if told != "" && i < len(text) {
		told += " ..."
	}
	return told
}

// at is the length of the longest secret that the text begins with.
func (s secrets) at(text string) int {
	longest := 0
	if len(text) >= minSecret {
		for _, value := range s.byStart[text[:minSecret]] {
			if strings.HasPrefix(text, value) {
				longest = max(longest, len(value))
			}
		}
	}
	return longest
}
