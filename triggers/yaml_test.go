package triggers

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bellhop-dev/bellhop/internal/cputime"
)

const inbox = `# rules of the inbox
triggers:
  - name: triage-inbox
    on: com.acme.email.received            # CloudEvents type; * matches one segment, ** the rest
    when: event.data.folder == "INBOX" && !event.data.from.endsWith("@noreply.acme.com")
    run: http:request
    with:
      method: POST
      url: http://agents.internal/triage
      json: {message: "${event.data.id}"}
    queue: agents
`

func TestParseIsTheTriggerOfGo(t *testing.T) {
	t.Parallel()
	retries := 3
	got, err := Parse("triggers.yaml", []byte(inbox+`
  - name: all
    on: "**"
    run: log:write
    with: {n: 1, f: 1.50, hex: 0x1F, big: 123456789012345678901234567890, none: null, yes: true, when: 2026-01-02, list: [a, {b: c}]}
    in: 1m30s
    max_retry: 3
    timeout: 10s
    retention: 24h
    unique: 5m
    disabled: true
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Trigger{
		{
			Name: "triage-inbox", On: "com.acme.email.received", Run: "http:request", Queue: "agents",
			When: `event.data.folder == "INBOX" && !event.data.from.endsWith("@noreply.acme.com")`,
			With: map[string]any{
				"method": "POST", "url": "http://agents.internal/triage",
				"json": map[string]any{"message": "${event.data.id}"},
			},
		},
		{
			Name: "all", On: "**", Run: "log:write",
			With: map[string]any{
				"n": 1, "f": 1.5, "hex": 31, "big": json.Number("123456789012345678901234567890"), "none": nil, "yes": true, "when": "2026-01-02",
				"list": []any{"a", map[string]any{"b": "c"}},
			},
			In: 90 * time.Second, MaxRetry: &retries, Timeout: 10 * time.Second, Retention: 24 * time.Hour,
			Unique: 5 * time.Minute, Disabled: true,
		},
	}
	for i := range got {
		// As payloads they are the same: JSON has one kind of number.
		if diff := cmp.Diff(mustPlain(t, want[i].With), mustPlain(t, got[i].With), cmpNumbers); diff != "" {
			t.Error(diff)
		}
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Trigger{}), cmpopts.IgnoreFields(Trigger{}, "With")); diff != "" {
		t.Error(diff)
	}
	if line := got[0].origin.line("with.json.message"); line != 10 {
		t.Errorf("with.json.message is said to be in line %d", line)
	}
}

func TestAnchorsAndMerges(t *testing.T) {
	t.Parallel()
	got, err := Parse("t.yaml", []byte(`
x-defaults: &http {run: http:request, queue: agents, with: &w {method: POST, url: u}}
triggers:
  - {<<: *http, name: a, on: a.b}
  - {<<: [*http], name: b, on: a.b, queue: other, with: {<<: *w, url: v}}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Trigger{
		{Name: "a", On: "a.b", Run: "http:request", Queue: "agents", With: map[string]any{"method": "POST", "url": "u"}},
		{Name: "b", On: "a.b", Run: "http:request", Queue: "other", With: map[string]any{"method": "POST", "url": "v"}},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Trigger{})); diff != "" {
		t.Error(diff)
	}
}

func TestParseTellsEveryFault(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		yaml string
		want []string
	}{
		"indented less": {"triggers:\n  - name: a\n    on: a.b\n   run: log:write\n", []string{"f.yaml:4: |indent the line"}},
		"unequal items": {"triggers:\n- name: a\n  on: x\n - name: b\n   on: y\n", []string{"f.yaml:4: |indent the line"}},
		"indented more": {"triggers:\n  - name: a\n    on: a.b\n      run: log:write\n", []string{"f.yaml:4: |indented too far"}},
		"a tab":         {"triggers:\n  - name: a\n\ton: a.b\n", []string{"f.yaml:3: |with spaces"}},
		"not yaml":      {"triggers:\n  - name: a\n    when: event.data.x == \"a: b\" : c\n", []string{"f.yaml:3: |quote values"}},
		"empty":         {"", []string{"f.yaml: is empty"}},
		"comment":       {"# nothing\n", []string{"is empty"}},
		"a list":        {"- name: a\n", []string{`must begin with the key "triggers:"`}},
		"no triggers":   {"x-a: 1\n", []string{`has no key "triggers:"`}},
		"no list":       {"triggers:\n  name: a\n", []string{"f.yaml:2: |must be a list"}},
		"typo at top":   {"trigers:\n  - name: a\n", []string{`f.yaml:1: unknown key "trigers", did you mean "triggers"?`}},
		"two docs":      {"triggers: []\n---\ntriggers: []\n", []string{"second document"}},
		"scalar":        {"triggers: [a]\n", []string{"must be a mapping"}},
		"filter is tag": {"triggers:\n  - name: a\n    when: !event.data.x\n", []string{`f.yaml:3: trigger "a": when: begins with !`}},
		"many at once": {
			"triggers:\n  - name: a\n    onn: b\n    in: soon\n    max_retry: 1.5\n    timeout: 0s\n    disabled: perhaps\n    with:\n    when: ''\n" +
				"  - name: b\n    name: c\n    with:\n      x: .inf\n      x: 1\n      ${a}: 1\n      {a: b}: 1\n",
			[]string{
				`f.yaml:3: trigger "a": unknown key "onn", did you mean "on"?`,
				`f.yaml:4: trigger "a": in: "soon" is no duration: write one like 30s`,
				`f.yaml:5: trigger "a": max_retry: "1.5" is no whole number`,
				`f.yaml:6: trigger "a": timeout: is 0: leave it out`,
				`f.yaml:7: trigger "a": disabled: "perhaps" is neither true nor false`,
				`f.yaml:8: trigger "a": with: is empty`,
				`f.yaml:9: trigger "a": when: is empty`,
				`f.yaml:11: trigger "b": has the key "name" twice, the first in line 10`,
				`f.yaml:13: trigger "b": with.x: is .inf`,
				`f.yaml:14: trigger "b": with: has the key "x" twice`,
				`f.yaml:16: trigger "b": with: has a key that is no text`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse("f.yaml", []byte(c.yaml))
			wantFaults(t, err, c.want...)
		})
	}
}

func TestLoadRefusesNamesUsedTwice(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one.yaml"), filepath.Join(dir, "two.yaml")
	write := func(file, text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(one, inbox)
	write(two, "triggers:\n  - name: other\n    on: a\n    run: b\n  - on: a\n    run: b\n    name: triage-inbox\n")
	_, err := Load(one, two)
	wantFaults(t, err, two+`:7: trigger "triage-inbox": name: is used already in `+one+`:3`)

	write(two, "triggers:\n  - name: other\n    on: a\n    run: b\n")
	got, err := Load(one, two)
	if err != nil || len(got) != 2 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := Load(filepath.Join(dir, "none.yaml")); err == nil || !strings.Contains(err.Error(), "none.yaml") {
		t.Errorf("a missing file gave %v", err)
	}
}

// Bombs must be refused for the processor time that a plain text of nearly a file's length costs (some 13 ms), five
// times that at most, and within 64 MiB. Not parallel: it measures.
//
//nolint:paralleltest // it measures the process
func TestBombsAreRefused(t *testing.T) {
	lol := "x-a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'k'; c++ {
		lol += fmt.Sprintf("x-%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", c-1), 10), ","))
	}
	merges := "x-a: &a {m1: 1}\n"
	for c := 'b'; c <= 'k'; c++ {
		merges += fmt.Sprintf("x-%c: &%c {<<: [%s]}\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", c-1), 10), ","))
	}
	one := "triggers:\n  - name: a\n    on: b\n    run: c\n    with: "
	plain, _, err := parseCost(one + "[\"" + strings.Repeat("x", 900_000) + "\"]\n")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("a plain text %v", plain)
	for name, text := range map[string]string{
		"aliases":         lol + one + "*k\n",
		"merges":          merges + one + "*k\n",
		"long text":       "x-a: &a \"" + strings.Repeat("x", 900_000) + "\"\n" + one + "[" + strings.Repeat("*a,", 40_000) + "]\n",
		"itself":          one + "&w [*w]\n",
		"merge of itself": one + "&w {<<: *w}\n",
		"flow nesting":    one + strings.Repeat("[", 140_000),
		"closed nesting":  one + strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000),
		"map nesting":     one + strings.Repeat("{a: ", 60_000),
		"key nesting":     one + strings.Repeat("? ", 100_000),
		"list nesting":    one + "\n      " + strings.Repeat("- ", 100_000) + "x",
		"too many values": one + "[" + strings.Repeat("1,", 500_000) + "]",
		"too large":       one + strings.Repeat("x", MaxFileBytes),
	} {
		took, allocated, err := parseCost(text)
		if err == nil {
			t.Errorf("%s: taken", name)
			continue
		}
		if len(err.Error()) > 2000 {
			t.Errorf("%s: the error has %d bytes", name, len(err.Error()))
		}
		if took > 5*plain {
			t.Errorf("%s: took %v, a plain text %v", name, took, plain)
		}
		if allocated > 64 {
			t.Errorf("%s: allocated %d MiB", name, allocated)
		}
		t.Logf("%-16s %10v %3d MiB  %.150v", name, took.Round(time.Microsecond), allocated, err)
	}
}

// parseCost is what Parse costs: the least processor time of three runs, since a neighbour on the machine slows a run down and
// never speeds one up, and the MiB that one allocates.
func parseCost(text string) (took time.Duration, allocated uint64, err error) {
	took = math.MaxInt64
	for range 3 {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		begin := cputime.Used()
		_, err = Parse("bomb.yaml", []byte(text))
		took = min(took, cputime.Used()-begin)
		runtime.ReadMemStats(&after)
		allocated = (after.TotalAlloc - before.TotalAlloc) >> 20
	}
	return took, allocated, err
}

// The largest plain file that is taken has to stay affordable too.
func TestLargeFile(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("triggers:\n")
	for i := range 5000 {
		fmt.Fprintf(&b, "  - name: rule-%d\n    on: com.acme.%d\n    when: event.data.n == %d\n    run: log:write\n    with: {id: \"${event.id}\"}\n", i, i, i)
	}
	got, err := Parse("large.yaml", []byte(b.String()))
	if err != nil || len(got) != 5000 {
		t.Errorf("%d triggers, %v", len(got), err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(inbox)
	f.Add("triggers:\n  - {<<: &a {name: x}, with: *a}\n")
	f.Add("triggers: [{name: a, with: {a: !!binary aGk=, b: 1_000, c: ~, d: 0o7, ? [x] : y}}]\n---\n")
	f.Add("x-a: &a [*a]\ntriggers: *a")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 10_000 {
			return
		}
		begin := time.Now()
		triggers, err := Parse("fuzz.yaml", []byte(text))
		if err == nil {
			_, err = Compile(triggers, knownTasks(), Config{})
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("took %v", took)
		}
		if err != nil && !strings.Contains(err.Error(), "fuzz.yaml") {
			t.Errorf("a fault without its file: %v", err)
		}
	})
}
