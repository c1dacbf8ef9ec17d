package suggest_test

import (
	"testing"

	"github.com/bellhop-dev/bellhop/internal/suggest"
)

func TestNearest(t *testing.T) {
	t.Parallel()
	known := []string{"concurrency", "queues", "grace", "max_retry"}
	for typed, want := range map[string]string{
		"concurency": "concurrency", "concurrecny": "concurrency", "Queues": "queues", "queue": "queues",
		"graec": "grace", "maxretry": "max_retry", "x": "", "something_else": "", "": "",
	} {
		if got := suggest.Nearest(typed, known); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", typed, got, want)
		}
	}
}

func TestOneOf(t *testing.T) {
	t.Parallel()
	for want, names := range map[string][]string{"": nil, "a": {"a"}, "a or b": {"a", "b"}, "a, b or c": {"a", "b", "c"}} {
		if got := suggest.OneOf(names); got != want {
			t.Errorf("OneOf(%q) = %q, want %q", names, got, want)
		}
	}
}
