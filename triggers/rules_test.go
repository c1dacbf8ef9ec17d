package triggers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

// followed are rules that are being followed until the test ends.
type followed struct {
	*Rules
	log *logText
}

type logText struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logText) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logText) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

func newFollowed(t testing.TB, from Sources, tasks Tasks, cfg Config) *followed {
	t.Helper()
	log := new(logText)
	rules, err := NewRules(t.Context(), from, tasks, cfg, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return &followed{rules, log}
}

// run follows the rules until the test ends, or stop is called.
func (f *followed) run(t testing.TB) (stop func()) {
	t.Helper()
	return background(t, f.Run)
}

func background(t testing.TB, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return stop
}

func follow(t testing.TB, s *Store, tasks Tasks, code []Trigger, files ...string) *followed {
	t.Helper()
	f := newFollowed(t, Sources{Code: code, Files: files, Store: s}, tasks, Config{})
	f.run(t)
	return f
}

// wants tells whether exactly these triggers fire.
func (f *followed) wants(names ...string) error {
	got := f.Set().Active()
	slices.Sort(got)
	names = slices.Sorted(slices.Values(names))
	if !slices.Equal(got, names) {
		return fmt.Errorf("%v fire, want %v; log:\n%s", got, names, f.log.text())
	}
	return nil
}

func yamlOf(names ...string) string {
	var b strings.Builder
	b.WriteString("triggers:\n")
	for _, name := range names {
		fmt.Fprintf(&b, "  - name: %s\n    on: \"**\"\n    run: log:write\n", name)
	}
	if len(names) == 0 {
		b.WriteString("  []\n")
	}
	return b.String()
}

func writeFile(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// replaceFile writes beside and renames, as editors and deployments do.
func replaceFile(t testing.TB, file, text string) {
	t.Helper()
	writeFile(t, file+".new", text)
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

func TestFilesAreReadAgainWhenTheyChange(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "triggers.yaml")
	writeFile(t, file, yamlOf("a"))
	rules := follow(t, nil, knownTasks(), []Trigger{logging("code")}, file)
	if err := rules.wants("a", "code"); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name  string
		write func()
		want  []string
	}{
		{"written in place", func() { writeFile(t, file, yamlOf("a", "b")) }, []string{"a", "b"}},
		{"replaced", func() { replaceFile(t, file, yamlOf("c")) }, []string{"c"}},
		{"replaced again", func() { replaceFile(t, file, yamlOf("d")) }, []string{"d"}},
		{"no rule left", func() { writeFile(t, file, yamlOf()) }, nil},
		{"removed, then there again", func() {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			writeFile(t, file, yamlOf("e"))
		}, []string{"e"}},
		{"many edits in a row", func() {
			for n := range 50 {
				writeFile(t, file, yamlOf(fmt.Sprint("edit-", n)))
			}
			replaceFile(t, file, yamlOf("last"))
		}, []string{"last"}},
	} {
		begin := time.Now()
		step.write()
		eventually(t, func() error { return rules.wants(append(step.want, "code")...) })
		t.Logf("%-26s %v", step.name, time.Since(begin).Round(time.Millisecond))
	}
	if s := rules.Status(); len(s.Faults) > 0 || s.Loaded < 5 {
		t.Errorf("%+v", s)
	}
}

func TestAFaultyFileKeepsTheOldRulesAndSaysSo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, other := filepath.Join(dir, "triggers.yaml"), filepath.Join(dir, "other.yaml")
	writeFile(t, file, yamlOf("a"))
	writeFile(t, other, yamlOf("b"))
	rules := follow(t, nil, knownTasks(), nil, file, other)
	faulty := func() int { return rules.log.count("the files are faulty") }
	for n, step := range []struct {
		name, want string
		write      func()
	}{
		{"no YAML", file + ":1: ", func() { writeFile(t, file, "{") }},
		{"emptied", file + ": is empty", func() { writeFile(t, file, "") }},
		{"removed", "no such file", func() {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}},
		{"unknown task, twice", file + `:4: trigger "x": run: no task "log:wirte", did you mean`, func() {
			replaceFile(t, file, strings.ReplaceAll(yamlOf("x"), "log:write", "log:wirte"))
		}},
		{"half of it", file + ":3: ", func() { writeFile(t, file, yamlOf("x")[:30]) }},
		{"a name of the other file", other + `:2: trigger "b": name: is used already in ` + file + ":2", func() { writeFile(t, file, yamlOf("b")) }},
	} {
		step.write()
		eventually(t, func() error {
			if s := rules.Status(); len(s.Faults) == 0 || !strings.Contains(s.Faults[0], step.want) || s.FaultsSince.IsZero() {
				return fmt.Errorf("%s: faults %q, want %q", step.name, s.Faults, step.want)
			}
			return nil
		})
		if faulty() != n+1 || rules.Status().Refused != uint64(n+1) {
			t.Errorf("%s: told %d times, counted %d times, want %d", step.name, faulty(), rules.Status().Refused, n+1)
		}
		if err := rules.wants("a", "b"); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
	}
	// The other file changes meanwhile: all or none.
	writeFile(t, other, yamlOf("b2"))
	writeFile(t, file, yamlOf("a2"))
	eventually(t, func() error { return rules.wants("a2", "b2") })
	if s := rules.Status(); len(s.Faults) != 0 || !s.FaultsSince.IsZero() || rules.log.count("the files are good again") != 1 {
		t.Errorf("after it was mended: %+v", s)
	}
}

// A file that is written slowly has rules missing at its end for a while: they must not be taken for removed.
func TestAHalfWrittenFileIsNotTaken(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "triggers.yaml")
	names := []string{}
	for n := range 20 {
		names = append(names, fmt.Sprintf("rule-%02d", n))
	}
	writeFile(t, file, yamlOf(names...))
	rules := follow(t, nil, knownTasks(), nil, file)
	text := yamlOf(append(names, "new")...)
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	const pieces = 20
	for n := range pieces {
		if _, err := f.WriteString(text[n*len(text)/pieces : (n+1)*len(text)/pieces]); err != nil {
			t.Fatal(err)
		}
		if active := len(rules.Set().Active()); n < pieces-1 && active != len(names) {
			t.Fatalf("%d rules fire while the file is being written", active)
		}
		<-time.After(10 * time.Millisecond) // a slow writer, well within the time that a file has to settle
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { return rules.wants(append(names, "new")...) })
	if s := rules.Status(); s.Loaded != 1 || s.Refused != 0 {
		t.Logf("loaded %d times, refused %d times: the machine is slow", s.Loaded, s.Refused)
	}
}

// Kubernetes mounts a ConfigMap as links: triggers.yaml -> ..data/triggers.yaml, ..data -> ..2026_01_01; a change makes a new
// directory and swaps ..data.
func TestALinkThatIsSwappedIsFollowed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	version := func(name string, rules ...string) {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, name, "triggers.yaml"), yamlOf(rules...))
		if err := os.Symlink(name, filepath.Join(dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	version("..one", "a")
	file := filepath.Join(dir, "triggers.yaml")
	if err := os.Symlink("..data/triggers.yaml", file); err != nil {
		t.Fatal(err)
	}
	rules := follow(t, nil, knownTasks(), nil, file)
	for n := range 3 {
		name := fmt.Sprint("b", n)
		begin := time.Now()
		version(fmt.Sprint("..two", n), name)
		eventually(t, func() error { return rules.wants(name) })
		t.Logf("seen after %v", time.Since(begin).Round(time.Millisecond))
	}
}

// The directory itself is replaced, which takes its watch along: the look from time to time finds it at the latest.
func TestADirectoryThatIsReplacedIsFound(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "rules")
	file := filepath.Join(dir, "triggers.yaml")
	fill := func(names ...string) {
		if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
			t.Fatal(err)
		}
		writeFile(t, file, yamlOf(names...))
	}
	fill("first")
	rules := follow(t, nil, knownTasks(), nil, file)
	for n := range 2 {
		name, begin := fmt.Sprint("a", n), time.Now()
		fill(name)
		eventually(t, func() error { return rules.wants(name) })
		t.Logf("found after %v", time.Since(begin).Round(time.Millisecond))
	}
	writeFile(t, file, yamlOf("watched-again"))
	eventually(t, func() error { return rules.wants("watched-again") })
}

func TestReloadLooksAtOnceAndTellsTheOutcome(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "triggers.yaml")
	writeFile(t, file, yamlOf("a"))
	rules := follow(t, newStore(t, redistest.Embedded(t), Config{}), knownTasks(), nil, file)
	rules.Reload()
	eventually(t, func() error {
		if rules.log.count("the rules are the same") == 0 {
			return errors.New("the outcome of a reload was not told")
		}
		return nil
	})
	writeFile(t, file, "{")
	eventually(t, func() error {
		if len(rules.Status().Faults) == 0 {
			return errors.New("no fault yet")
		}
		return nil
	})
	told := rules.log.count("the files are faulty")
	rules.Reload()
	eventually(t, func() error {
		if rules.log.count("the files are faulty") == told {
			return errors.New("who asks for a reload is told the fault again")
		}
		return nil
	})
}

// What can't be read hides no other fault, and is told once: what only comes of it is left out.
func TestOneLookTellsTheFaultsOfEveryStage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, c := range map[string]struct {
		files []string
		want  []string
	}{
		"an unknown key": {
			[]string{`triggers:
  - {name: a, onn: x, run: http:request, with: {method: GET, url: u}}
  - {name: b, on: x, run: log:wirte}
  - {name: c, on: x, run: http:request, with: {method: 1, url: u}}
  - {name: d, onn: x, on: a.**.b, run: log:write, when: nope}
`},
			[]string{
				`0.yaml:2: trigger "a": unknown key "onn", did you mean "on"?`, `0.yaml:5: trigger "d": unknown key "onn"`,
				`0.yaml:3: trigger "b": run: no task "log:wirte", did you mean "log:write"?`, `0.yaml:4: trigger "c": with.method: is 1`,
				`0.yaml:5: trigger "d": on: event type pattern`, `0.yaml:5: trigger "d": when: undeclared reference to 'nope'`,
			},
		},
		"another's key": {
			[]string{"triggers:\n  - {name: a, on: x, task: log:write}\n"},
			[]string{`unknown key "task"`, `run: is missing`},
		},
		"the same name": {
			[]string{
				"triggers:\n  - {name: a, on: a.**.b, run: log:write}\n",
				"triggers:\n  - {name: a, on: x, run: http:request, when: nope > 1, with: {method: GET, ulr: u}}\n  - {name: b, on: x, run: nope}\n",
			},
			[]string{
				`0.yaml:2: trigger "a": on: event type pattern`, `1.yaml:2: trigger "a": when: undeclared reference`,
				`1.yaml:2: trigger "a": with.ulr: task`, `1.yaml:2: trigger "a": with: field "url" is missing`,
				`1.yaml:3: trigger "b": run: no task "nope"`, `1.yaml:2: trigger "a": name: is used already in |0.yaml:2`,
			},
		},
		"no YAML": {
			[]string{"triggers: [\n", "triggers:\n  - {name: b, on: x, run: nope}\n"},
			[]string{`0.yaml`, `1.yaml:2: trigger "b": run: no task "nope"`},
		},
		"values": {
			[]string{`triggers:
  - {name: a, on: [x], run: {y: z}, with: 1}
  - {name: b, on: x, run: http:request, with: {method: .inf, follow: 7, url: !a b}}
  - {name: c, on: x, run: http:request, with: {method: a, {x: y}: u, follow: 7}}
  - {name: d, on: x, run: http:request, with: {method: a, url: u, url: v, follow: "${"}}
  - {name: [x], on: x, run: nope}
`},
			[]string{
				`:2: trigger "a": on: must be text`, `:2: trigger "a": run: must be text`,
				`:3: trigger "b": with.method: is .inf`, `:3: trigger "b": with.url: begins with !`,
				`:4: trigger "c": with: has a key that is no text`, `:5: trigger "d": with: has the key "url" twice`,
				`:6: name: must be text`,
				`:3: trigger "b": with.follow: is 7, `, `:4: trigger "c": with.follow: is 7, `, `:5: trigger "d": with.follow: the ${ at character 1 is never closed`,
				`:6: run: no task "nope"`,
			},
		},
		"merges": {
			[]string{"triggers:\n  - {<<: x, name: A, run: nope}\n"},
			[]string{`<< merges mappings only`, `name: "A": use small letters`, `run: no task "nope"`},
		},
		"too much": {
			[]string{"x-a: &a [" + strings.Repeat("1,", 999) + "1]\nx-b: &b [" + strings.Repeat("*a,", 20) + "]\n" +
				"triggers:\n  - {name: a, on: a.**.b, run: nope}\n  - {name: b, on: x, run: http:request, with: *b}\n  - *b\n"},
			[]string{`its aliases (*name) unfold`, "must be a mapping", `:4: trigger "a": on: event type`, `:4: trigger "a": run: no task`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var files []string
			for i, text := range c.files {
				file := filepath.Join(dir, fmt.Sprintf("%s-%d.yaml", name, i))
				writeFile(t, file, text)
				files = append(files, file)
			}
			_, err := NewRules(t.Context(), Sources{Files: files}, knownTasks(), Config{}, nil)
			wantFaults(t, err, c.want...)
		})
	}
}

func TestNewRulesTellsEveryFault(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "triggers.yaml")
	writeFile(t, file, strings.ReplaceAll(yamlOf("a", "b"), "log:write", "nope"))
	_, err := NewRules(t.Context(), Sources{Files: []string{file}, Code: []Trigger{logging("a")}}, knownTasks(), Config{}, nil)
	wantFaults(t, err, file+":4: ", file+":7: ", "is used already in "+file+":2")
	if _, err := NewRules(t.Context(), Sources{}, knownTasks(), Config{CostLimit: 1}, nil); err == nil {
		t.Error("a bad configuration was taken")
	}
	gone := redistest.Start(t)
	away := newStore(t, gone.Client(), Config{})
	gone.Kill()
	if _, err := NewRules(t.Context(), Sources{Store: away}, knownTasks(), Config{}, nil); !errors.Is(err, ErrStoreAway) {
		t.Errorf("a Redis that is away gave %v", err)
	}
	s := newStore(t, redistest.Embedded(t), Config{Group: "one"})
	if _, err := NewRules(t.Context(), Sources{Store: s}, knownTasks(), Config{}, nil); err == nil || !strings.Contains(err.Error(), `group "one"`) {
		t.Errorf("a store of another group gave %v", err)
	}
}
