package triggers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/job"
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

// Every process of the group has a change soon; the time is printed.
func TestProcessesFollowTheStore(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		s := newStore(t, rdb, Config{})
		put(t, s, logging("before"), Change{})
		one, two := follow(t, s, knownTasks(), nil), follow(t, newStore(t, rdb, Config{}), knownTasks(), nil)
		both := func(names ...string) {
			t.Helper()
			begin := time.Now()
			eventually(t, func() error { return errors.Join(one.wants(names...), two.wants(names...)) })
			t.Logf("%v after %v", names, time.Since(begin).Round(time.Millisecond))
		}
		both("before")
		eventually(t, func() error {
			if all, err := s.Processes(t.Context()); err != nil || len(all) != 2 {
				return fmt.Errorf("%d processes report, %w", len(all), err)
			}
			return nil
		})
		put(t, s, logging("a"), Change{})
		both("a", "before")
		changed := put(t, s, Trigger{Name: "a", On: "x.y", Run: "log:write"}, Change{})
		eventually(t, func() error {
			if one.Set().byName["a"].On != "x.y" || two.Set().byName["a"].revision != changed.Revision {
				return errors.New("the change isn't there")
			}
			return nil
		})
		if _, err := s.Switch(t.Context(), "a", false, Change{}); err != nil {
			t.Fatal(err)
		}
		both("before")
		if _, err := s.Switch(t.Context(), "a", true, Change{}); err != nil {
			t.Fatal(err)
		}
		both("a", "before")
		for n := range 100 { // rapid edits end in the last one
			put(t, s, Trigger{Name: "rapid", On: fmt.Sprint("edit.", n), Run: "log:write"}, Change{})
		}
		begin := time.Now()
		eventually(t, func() error {
			a, b := one.Set().byName["rapid"], two.Set().byName["rapid"]
			if a == nil || b == nil || a.On != "edit.99" || b.On != "edit.99" {
				return errors.New("the last edit isn't there")
			}
			return nil
		})
		t.Logf("the last of 100 edits after %v", time.Since(begin).Round(time.Millisecond))
		for _, name := range []string{"a", "before", "rapid"} {
			if err := s.Delete(t.Context(), name, Change{}); err != nil {
				t.Fatal(err)
			}
		}
		both()
	})
}

func TestAFlushOrAnOutageKeepsTheLastRules(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	rdb := server.Client()
	s := newStore(t, rdb, Config{})
	put(t, s, logging("a"), Change{})
	rules := follow(t, s, knownTasks(), nil)
	if err := rdb.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	rules.Reload()
	eventually(t, func() error {
		if !rules.Status().StoreGone {
			return errors.New("the flush isn't seen")
		}
		return nil
	})
	if err := rules.wants("a"); err != nil {
		t.Fatal(err)
	}
	// What is written then is the store's new life, although its revision is the same as before.
	if made := put(t, s, logging("b"), Change{}); made.Revision != 1 {
		t.Errorf("revision %d", made.Revision)
	}
	eventually(t, func() error { return rules.wants("b") })
	if rules.log.count("the store is gone") != 1 || rules.Status().StoreGone {
		t.Errorf("a flush is told %d times", rules.log.count("the store is gone"))
	}

	server.Kill()
	rules.Reload()
	eventually(t, func() error {
		if rules.log.count("the rules stay as they are; trying on") != 1 {
			return errors.New("the outage isn't told")
		}
		return nil
	})
	if err := rules.wants("b"); err != nil {
		t.Fatal(err)
	}
	server.Restart() // it has kept nothing
	eventually(t, func() error {
		if rules.log.count("the store answers again") != 1 {
			return errors.New("the end of the outage isn't told")
		}
		return nil
	})
	if err := rules.wants("b"); err != nil {
		t.Fatal(err)
	}
	put(t, s, logging("c"), Change{})
	begin := time.Now()
	eventually(t, func() error { return rules.wants("c") })
	t.Logf("a change after an outage is there after %v", time.Since(begin).Round(time.Millisecond))
}

// growingTasks learns tasks, as the fleet's catalog does.
type growingTasks struct {
	mu   sync.Mutex
	list map[string]job.Definition
}

func (g *growingTasks) Task(name string) (job.Definition, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	d, known := g.list[name]
	return d, known
}

func (g *growingTasks) Names() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Sorted(maps.Keys(g.list))
}

func (g *growingTasks) learn(d job.Definition) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.list[d.Name] = d
}

// A rule whose task one worker doesn't know doesn't take that worker's other rules down, and runs once the task is known.
func TestARuleThatCannotRunHereIsLeftOut(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	s := newStore(t, rdb, Config{})
	put(t, s, logging("good"), Change{})
	put(t, s, Trigger{Name: "special", On: "**", Run: "any:thing"}, Change{})
	if err := rdb.HSet(t.Context(), s.keys.rules, "damaged", "9 1 {").Err(); err != nil {
		t.Fatal(err)
	}
	few := &growingTasks{list: map[string]job.Definition{"log:write": logWrite.Definition()}}
	narrow, wide := follow(t, s, few, nil), follow(t, s, knownTasks(), nil)
	if err := errors.Join(narrow.wants("good"), wide.wants("good", "special")); err != nil {
		t.Fatal(err)
	}
	state := func(name, want string) error {
		l, err := s.Lookup(t.Context(), name)
		if err == nil && l.State != want {
			err = fmt.Errorf("%s is %s, want %s: %+v", name, l.State, want, l)
		}
		return err
	}
	eventually(t, func() error {
		return errors.Join(state("good", StateActive), state("special", StateFaulty), state("damaged", StateFaulty))
	})
	l, err := s.Lookup(t.Context(), "special")
	if err != nil || len(l.Faults) != 1 || !strings.Contains(l.Faults[0], `no task "any:thing"`) || l.Processes != 1 {
		t.Errorf("%+v, %v", l, err)
	}
	if n := narrow.log.count("is left out"); n != 2 {
		t.Errorf("told %d times, want once for each", n)
	}
	few.learn(anyTask.Definition())
	narrow.Reload()
	eventually(t, func() error { return errors.Join(narrow.wants("good", "special"), state("special", StateActive)) })
	if narrow.log.count("a rule that was left out runs") != 1 {
		t.Error("that it runs isn't told")
	}
}

// Files and code win over the store; the store can only switch theirs off, and that is seen.
func TestFilesWinAndCanBeSwitchedOff(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "triggers.yaml")
	writeFile(t, file, yamlOf("from-file")+"  - {name: off-in-file, on: a, run: log:write, disabled: true}\n")
	rdb := redistest.New(t)
	s := newStore(t, rdb, Config{})
	put(t, s, logging("from-store"), Change{})
	put(t, s, Trigger{Name: "from-code", On: "never", Run: "log:write"}, Change{}) // before anybody has one of that name
	rules := follow(t, s, knownTasks(), []Trigger{logging("from-code")}, file)
	if err := rules.wants("from-code", "from-file", "from-store"); err != nil {
		t.Fatal(err)
	}
	if on := rules.Set().byName["from-code"].On; on != "**" {
		t.Errorf("the store's trigger won over code: on %s", on)
	}
	ctx := t.Context()
	look := func(name string) Listed {
		t.Helper()
		l, err := s.Lookup(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	eventually(t, func() error {
		all, err := s.Overview(ctx)
		if err == nil && (len(all.Processes) != 1 || len(all.Triggers) != 4) {
			err = fmt.Errorf("%+v", all)
		}
		return err
	})
	if l := look("from-file"); l.Origin != OriginFile || l.Place != file+":2" || l.State != StateActive || l.Stored != nil || l.Run != "log:write" {
		t.Errorf("%+v", l)
	}
	if l := look("from-code"); l.Origin != OriginCode || l.State != StateActive || len(l.Faults) != 1 || l.Stored == nil {
		t.Errorf("%+v", l)
	}
	if l := look("off-in-file"); l.State != StateDisabled || !l.Disabled || l.Off {
		t.Errorf("%+v", l)
	}
	for name, err := range map[string]error{
		"a change of a file's":         second(s.Put(ctx, logging("from-file"), Change{})),
		"a change of a code's":         second(s.Put(ctx, logging("from-code"), Change{})),
		"a removal of a file's":        s.Delete(ctx, "from-file", Change{}),
		"an end of disabled in a file": second(s.Switch(ctx, "off-in-file", true, Change{})),
	} {
		if !errors.Is(err, ErrReadOnly) {
			t.Errorf("%s gave %v", name, err)
		}
	}
	switched, err := s.Switch(ctx, "from-file", false, Change{By: "ann", Note: "too loud"})
	if err != nil || switched.Trigger != nil || !switched.Off {
		t.Errorf("%+v, %v", switched, err)
	}
	eventually(t, func() error { return rules.wants("from-code", "from-store") })
	if l := look("from-file"); l.State != StateDisabled || !l.Off || l.Origin != OriginFile || l.Stored == nil || l.Stored.By != "ann" || l.Stored.Note != "too loud" {
		t.Errorf("%+v", l)
	}
	// The switch outlives an edit of the file.
	writeFile(t, file, yamlOf("from-file", "another"))
	eventually(t, func() error { return rules.wants("another", "from-code", "from-store") })
	if _, err := s.Switch(ctx, "from-file", true, Change{Revision: switched.Revision}); err != nil {
		t.Error(err)
	}
	eventually(t, func() error { return rules.wants("another", "from-code", "from-file", "from-store") })
	if n := rdb.HLen(ctx, s.keys.rules).Val(); n != 2 {
		t.Errorf("%d records, want those of the two triggers", n)
	}

	// The switch is of the name: the store's hidden trigger may go, the file's stays off.
	if _, err := s.Switch(ctx, "from-code", false, Change{}); err != nil {
		t.Error(err)
	}
	if err := s.Delete(ctx, "from-code", Change{}); err != nil {
		t.Error(err)
	}
	eventually(t, func() error { return rules.wants("another", "from-file", "from-store") })
	if l := look("from-code"); l.State != StateDisabled || l.Stored == nil || l.Stored.Trigger != nil {
		t.Errorf("%+v", l)
	}
}

func second[T any](_ T, err error) error { return err }

// A process that has no rules of its own must not take the events of one that has.
func TestAWorkerWithoutRulesTakesNoEventsOfOthers(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	s := newStore(t, rdb, Config{})
	stream, err := events.NewClient(rdb, events.Config{})
	if err != nil {
		t.Fatal(err)
	}
	feedOf := func(code ...Trigger) *Feed {
		t.Helper()
		rules := newFollowed(t, Sources{Code: code, Store: s}, knownTasks(), Config{})
		f, err := NewLiveFeed(rules.Rules, stream, job.NewClient(rdb), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	idle := func(f *Feed, want bool) error {
		if got := f.rules.Status().Idle; got != want {
			return fmt.Errorf("idle: %t, want %t", got, want)
		}
		return nil
	}
	pending := func(want ...string) {
		t.Helper()
		eventually(t, func() error {
			ids, err := rdb.LRange(t.Context(), wire.PendingKey("default"), 0, -1).Result()
			got := []string{}
			for _, id := range ids {
				_, name, _ := strings.Cut(id, "-")
				_, name, _ = strings.Cut(name, "-")
				got = append(got, name)
			}
			slices.Sort(got)
			if diff := cmp.Diff(want, got); err == nil && diff != "" {
				err = errors.New(diff)
			}
			return err
		})
	}
	publish := func(n int) {
		t.Helper()
		if _, err := stream.PublishOne(t.Context(), numbered(t, n, `{}`)); err != nil {
			t.Fatal(err)
		}
	}

	bare := feedOf()
	background(t, bare.Run)
	publish(1)
	if drained, err := bare.Drained(t.Context()); err != nil || !drained {
		t.Errorf("a feed without rules has something to do: %t, %v", drained, err)
	}
	if groups, err := rdb.XInfoGroups(t.Context(), events.DefaultPrefix+"stream").Result(); err != nil || len(groups) != 0 {
		t.Errorf("a feed without rules holds back trimming: %v, %v", groups, err)
	}
	put(t, s, logging("stored"), Change{}) // now it has one
	eventually(t, func() error { return idle(bare, false) })
	pending("stored")

	full := feedOf(logging("code"))
	stop := background(t, full.Run)
	eventually(t, func() error { return errors.Join(idle(bare, true), idle(full, false)) })
	for n := 2; n < 7; n++ {
		publish(n)
	}
	pending("code", "code", "code", "code", "code", "stored", "stored", "stored", "stored", "stored", "stored")
	stop() // it signs off
	eventually(t, func() error { return idle(bare, false) })
	if err := idle(feedOf(), false); err != nil {
		t.Error(err)
	}
}

// Rules change under load: each event meets the rules before or after, and none is lost.
func TestRulesChangeWhileEventsFlow(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	s := newStore(t, rdb, Config{})
	stream, err := events.NewClient(rdb, events.Config{})
	if err != nil {
		t.Fatal(err)
	}
	var both []*followed
	for range 2 {
		rules := newFollowed(t, Sources{Code: []Trigger{logging("always")}, Store: s}, knownTasks(), Config{})
		f, err := NewLiveFeed(rules.Rules, stream, job.NewClient(rdb), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		background(t, f.Run)
		both = append(both, rules)
	}
	const all = 300
	for n := range all {
		if _, err := stream.PublishOne(t.Context(), numbered(t, n, `{}`)); err != nil {
			t.Fatal(err)
		}
		if n%20 == 0 {
			now := put(t, s, Trigger{Name: "flicker", On: "**", Run: "any:thing", Queue: "other", Disabled: n%40 == 0}, Change{})
			if n%60 == 0 { // the others meet events that are under way
				eventually(t, func() error {
					for _, rules := range both {
						if r := rules.Set().byName["flicker"]; r == nil || r.revision != now.Revision {
							return errors.New("the change isn't there")
						}
					}
					return nil
				})
			}
		}
	}
	eventually(t, func() error {
		if n := rdb.LLen(t.Context(), wire.PendingKey("default")).Val(); n != all {
			return fmt.Errorf("%d jobs, want %d", n, all)
		}
		return nil
	})
	var stats TriggerStats
	eventually(t, func() error {
		l, err := s.Lookup(t.Context(), "always")
		if stats = l.Stats; err == nil && (stats.Jobs != all || l.Processes != 2) {
			err = fmt.Errorf("%+v", l)
		}
		return err
	})
	flickered := rdb.LLen(t.Context(), wire.PendingKey("other")).Val()
	if flickered == 0 || flickered == all {
		t.Errorf("the one that came and went made %d jobs of %d events", flickered, all)
	}
	t.Logf("%+v; the one that came and went made %d jobs", stats, flickered)
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
	s := newStore(t, redistest.Embedded(t), Config{Group: "one"})
	if _, err := NewRules(t.Context(), Sources{Store: s}, knownTasks(), Config{}, nil); err == nil || !strings.Contains(err.Error(), `group "one"`) {
		t.Errorf("a store of another group gave %v", err)
	}
}
