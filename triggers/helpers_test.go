package triggers

import (
	"encoding/json"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/job"
)

// request is a payload with most shapes that a schema has.
type request struct {
	Method  string            `json:"method"`
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers,omitempty"`
	JSON    any               `json:"json,omitempty"`
	Retries *int              `json:"retries,omitempty"`
	Follow  bool              `json:"follow,omitempty"`
	Tags    []string          `json:"tags,omitempty"`
	Auth    *auth             `json:"auth,omitempty"`
}

type auth struct {
	User  string `json:"user"`
	Level int    `json:"level,omitempty"`
}

var (
	httpRequest = job.Define[request]("http:request", job.Queue("http"))
	logWrite    = job.Define[map[string]any]("log:write")
	anyTask     = job.Define[any]("any:thing")
)

func knownTasks() Tasks {
	return TaskList(httpRequest.Definition(), logWrite.Definition(), anyTask.Definition())
}

func compileAll(t testing.TB, cfg Config, triggers ...Trigger) *Set {
	t.Helper()
	set, err := Compile(triggers, knownTasks(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func event(t testing.TB, typ, data string, opts ...events.Option) *events.Event {
	t.Helper()
	opts = append([]events.Option{events.ID("e-1"), events.At(time.Date(2026, 3, 4, 5, 6, 7, 8_000_000, time.UTC))}, opts...)
	var raw any
	if data != "" {
		raw = json.RawMessage(data)
	}
	e, err := events.New(typ, "/mail", raw, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// fires evaluates the one trigger on the event.
func fires(t testing.TB, cfg Config, when string, e *events.Event) (bool, error) {
	t.Helper()
	set := compileAll(t, cfg, Trigger{Name: "t", On: "**", When: when, Run: "any:thing"})
	return set.rules[0].match(t.Context(), &occurrence{vars: newEventVars(e)})
}

// payloadOf evaluates the mapping on the event.
func payloadOf(t testing.TB, cfg Config, with any, e *events.Event) (string, error) {
	t.Helper()
	set := compileAll(t, cfg, Trigger{Name: "t", On: "**", With: with, Run: "any:thing"})
	payload, err := set.rules[0].payload(t.Context(), set, &occurrence{vars: newEventVars(e)})
	return string(payload), err
}

// wantFaults checks that the error joins exactly these faults, each holding all its fragments.
func wantFaults(t *testing.T, err error, want ...string) {
	t.Helper()
	var got []string
	collectFaults(err, &got)
	if len(got) != len(want) {
		t.Errorf("%d faults, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
		return
	}
	for i, w := range want {
		for fragment := range strings.SplitSeq(w, "|") {
			if !strings.Contains(got[i], fragment) {
				t.Errorf("fault %d: %q\nlacks %q", i, got[i], fragment)
			}
		}
	}
}

func collectFaults(err error, to *[]string) {
	if err == nil {
		return
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			collectFaults(e, to)
		}
		return
	}
	if f := new(Fault); errors.As(err, &f) {
		*to = append(*to, f.Error())
		return
	}
	*to = append(*to, "not a Fault: "+err.Error())
}

func mustPlain(t *testing.T, v any) any {
	t.Helper()
	plain, err := plainJSON(v)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// cmpNumbers compares numbers by value: 1.5 is 1.50, but no digit may be lost.
var cmpNumbers = cmp.Comparer(func(a, b json.Number) bool {
	x, okX := new(big.Rat).SetString(string(a))
	y, okY := new(big.Rat).SetString(string(b))
	return okX && okY && x.Cmp(y) == 0
})
