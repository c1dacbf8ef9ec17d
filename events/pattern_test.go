package events

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestMatchType(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		pattern, typ string
		want         bool
	}{
		{"com.acme.email", "com.acme.email", true},
		{"com.acme.email", "com.acme.emailing", false},
		{"com.acme.email", "com.acme.email.received", false},
		{"com.acme.email", "com.acme", false},
		{"com.acme.Email", "com.acme.email", false},
		{"com.*.email", "com.acme.email", true},
		{"com.*.email", "com.acme.x.email", false},
		{"com.*", "com.acme", true},
		{"com.*", "com", false},
		{"com.*", "com.", false},
		{"com.*", "com.acme.email", false},
		{"*", "ping", true},
		{"*", "a.b", false},
		{"**", "ping", true},
		{"**", "a.b.c", true},
		{"com.**", "com", false},
		{"com.**", "com.", false},
		{"com.**", "com.acme", true},
		{"com.**", "com.acme.email", true},
		{"com.**", "community.acme", false},
		{"*.email.**", "acme.email.x.y", true},
		{"*.email.**", "acme.email", false},
		{"a..b", "a..b", true}, // a strange type, but some source's own
	} {
		if got := MatchType(tc.pattern, tc.typ); got != tc.want {
			t.Errorf("MatchType(%q, %q) is %v", tc.pattern, tc.typ, got)
		}
	}
}

func TestValidatePattern(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]string{
		"":       "is empty",
		"a.**.b": "must come last",
		"a.b*":   "whole segment",
		"***":    "whole segment",
		"a..*":   "segment 2 is empty",
		".*":     "segment 1 is empty",
	} {
		if err := ValidatePattern(pattern); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ValidatePattern(%q) is %v, want %q", pattern, err, want)
		}
	}
	for _, pattern := range []string{"a", "a.b", "*", "**", "a.*", "a.**", "*.*.c"} {
		if err := ValidatePattern(pattern); err != nil {
			t.Error(err)
		}
	}
}

// The compiled pattern agrees with the definition, spelled out over segments.
func TestPatternIsItsDefinition(t *testing.T) {
	t.Parallel()
	matches := func(pattern, typ []string) bool {
		for i, p := range pattern {
			switch {
			case p == "**":
				return len(typ) > i
			case i >= len(typ), p != "*" && p != typ[i]:
				return false
			}
		}
		return len(pattern) == len(typ)
	}
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "*"}), 0, 4).Draw(t, "pattern")
		if rapid.Bool().Draw(t, "rest") || len(pattern) == 0 {
			pattern = append(pattern, "**")
		}
		typ := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 5).Draw(t, "type")
		got := MatchType(strings.Join(pattern, "."), strings.Join(typ, "."))
		if want := matches(pattern, typ); got != want {
			t.Fatalf("%v on %v is %v, want %v", pattern, typ, got, want)
		}
	})
}
