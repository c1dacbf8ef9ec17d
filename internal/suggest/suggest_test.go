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
