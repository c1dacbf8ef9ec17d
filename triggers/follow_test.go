package triggers

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
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
	anew := Trigger{Name: "a", On: "anew", Run: "log:write"}
	if made := put(t, s, anew, Change{}); made.Revision != 1 {
		t.Errorf("revision %d", made.Revision)
	}
	eventually(t, func() error {
		if on := rules.Set().byName["a"].On; on != "anew" {
			return fmt.Errorf("on %s", on)
		}
		return nil
	})
	if err := s.Delete(t.Context(), "a", Change{}); err != nil {
		t.Fatal(err)
	}
	put(t, s, logging("b"), Change{})
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

// A process that died says nothing any more: it is off the list when its report runs out.
func TestADeadProcessRunsOut(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	s := newStore(t, rdb, Config{})
	rules := newFollowed(t, Sources{Code: []Trigger{logging("a")}, Store: s}, knownTasks(), Config{})
	died := &follower{Rules: rules.Rules}
	died.beat(t.Context())
	alive := follow(t, s, knownTasks(), []Trigger{logging("a")})
	eventually(t, func() error {
		if all, err := s.Processes(t.Context()); err != nil || len(all) != 2 {
			return fmt.Errorf("%d processes, %w", len(all), err)
		}
		return nil
	})
	if left, err := rdb.PTTL(t.Context(), s.keys.process+died.id).Result(); err != nil || left <= 0 || left > reportFor {
		t.Errorf("the report is kept for %v, %v", left, err)
	}
	if err := rdb.Del(t.Context(), s.keys.process+died.id).Err(); err != nil { // its time is over
		t.Fatal(err)
	}
	all, err := s.Overview(t.Context())
	if err != nil || len(all.Processes) != 1 || all.Processes[0].ID != alive.id || all.Triggers[0].Processes != 1 {
		t.Errorf("%+v, %v", all, err)
	}
	if ids := rdb.SMembers(t.Context(), s.keys.processes).Val(); len(ids) != 1 {
		t.Errorf("%v are listed", ids)
	}
	if n := len(rdb.Keys(t.Context(), s.keys.set+"*").Val()); n != 1 {
		t.Errorf("%d lists of rules are kept for two processes that have the same", n)
	}
}

// The reports are bounded, however many rules the files have.
func TestReportsAreBounded(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	s := newStore(t, rdb, Config{})
	many := make([]Trigger, maxReported+10)
	for i := range many {
		many[i] = logging(fmt.Sprint("rule-", i))
	}
	follow(t, s, knownTasks(), many)
	eventually(t, func() error {
		all, err := s.Processes(t.Context())
		if err == nil && (len(all) != 1 || len(all[0].Triggers) != maxReported || all[0].More != 10) {
			err = fmt.Errorf("%d processes", len(all))
		}
		return err
	})
}
