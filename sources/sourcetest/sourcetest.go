// Package sourcetest is what every source must pass: see [Run]. A source's tests bring a [Harness], and a TestMain that calls
// [Main], so that the source can also run in a process of its own that is killed.
package sourcetest

import (
	"log/slog"
	"testing"
	"time"

	"github.com/bellhop-dev/bellhop/sources"
)

// limit bounds every wait for something that must come; it is far longer than anything takes.
const limit = 3 * time.Minute

// Harness is a place at a real broker, with one source's settings.
type Harness interface {
	// Settings are what the function given to Main makes a source of, in any process.
	Settings() string
	// Source makes a source of them in this process.
	Source(t testing.TB, logger *slog.Logger) sources.Source
	// Send sends a message for each id, in this order, durably: they are with the broker when it returns. It tries again over
	// an outage of the broker, and may then send one twice.
	Send(t testing.TB, ids ...string)
	// SendPoison sends n messages that can't become events.
	SendPoison(t testing.TB, n int)
	// SetAside returns the reasons of the messages that were set aside so far, and leaves them there.
	SetAside(t testing.TB) []string
	// Waiting counts the messages that are with the broker and in nobody's hands. A message just handed back may still be on
	// its way: poll.
	Waiting(t testing.TB) int
	// Cut ends the source's connections from outside.
	Cut(t testing.TB)
	// Crash kills the broker, and starts it again.
	Crash(t testing.TB)
}

// Run shows that a source keeps the promises of package sources. New makes a harness with a place of its own for each test. Where
// crash is false the broker is not killed: others use it.
func Run(t *testing.T, newHarness func(t *testing.T) Harness) {
	t.Helper()
	for name, test := range map[string]func(*bundle){
		"all are published in order and acknowledged":   (*bundle).allArePublished,
		"nothing is acknowledged before it is stored":   (*bundle).acknowledgedAfterward,
		"each is acknowledged for itself":               (*bundle).eachForItself,
		"while events are refused messages wait":        (*bundle).refused,
		"what is no event is set aside with the reason": (*bundle).poison,
		"a cut connection loses nothing":                (*bundle).cut,
		"an idle source ends at once":                   (*bundle).idle,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(newBundle(t, newHarness(t)))
		})
	}
}
