package events

import (
	"errors"
	"fmt"
	"strings"
)

// Pattern matches event types by their dot-separated segments:
//
//   - a segment stands for itself: com.acme.email.received
//   - `*` stands for exactly one segment: com.acme.*.received
//   - `**`, only as the last segment, stands for one or more: com.acme.** matches com.acme.email and
//     com.acme.email.received, but not com.acme
//
// A lone `**` matches every type. Matching is by whole segments and case, so "email" never matches "emailing".
type Pattern struct {
	text     string
	exact    bool
	segments []string // without the final **
	rest     bool     // ends in **
}

// CompilePattern returns the pattern ready for matching, or says what is wrong with it.
func CompilePattern(pattern string) (Pattern, error) {
	p := Pattern{text: pattern, exact: !strings.Contains(pattern, "*")}
	if pattern == "" {
		return Pattern{}, errors.New("event type pattern is empty: use ** to match every type")
	}
	p.segments = strings.Split(pattern, ".")
	last := len(p.segments) - 1
	for i, s := range p.segments {
		switch {
		case s == "" && !p.exact:
			return Pattern{}, fmt.Errorf("event type pattern %q: segment %d is empty", pattern, i+1)
		case s == "**" && i != last:
			return Pattern{}, fmt.Errorf("event type pattern %q: ** stands for the rest, it must come last; * matches one segment", pattern)
		case s != "*" && s != "**" && strings.Contains(s, "*"):
			return Pattern{}, fmt.Errorf("event type pattern %q: in segment %q, * must be the whole segment", pattern, s)
		}
	}
	if p.segments[last] == "**" {
		p.segments, p.rest = p.segments[:last], true
	}
	return p, nil
}

// String returns the pattern as it was written.
func (p Pattern) String() string { return p.text }

// Match reports whether the pattern matches the event type. It allocates nothing.
func (p Pattern) Match(typ string) bool {
	if p.exact {
		return typ == p.text
	}
	more := true
	for _, want := range p.segments {
		if !more {
			return false
		}
		var got string
		got, typ, more = strings.Cut(typ, ".")
		if want != "*" && want != got || got == "" {
			return false
		}
	}
	if p.rest {
		return more && typ != ""
	}
	return !more && len(p.segments) > 0
}

// ValidatePattern says what is wrong with an event type pattern: see [Pattern].
func ValidatePattern(pattern string) error {
	_, err := CompilePattern(pattern)
	return err
}

// MatchType reports whether the pattern is valid and matches the event type. Compile what is matched often.
func MatchType(pattern, typ string) bool {
	p, err := CompilePattern(pattern)
	return err == nil && p.Match(typ)
}
