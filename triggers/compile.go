package triggers

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/internal/suggest"
	"github.com/bellhop-dev/bellhop/job"
)

// Tasks is what triggers may run. It is asked at the start and again at every match, so that a task which was learned, or
// changed, meanwhile is the one that runs: it must answer from memory, and be safe for concurrent use.
type Tasks interface {
	// Task returns the definition of a task, false if it isn't known.
	Task(name string) (job.Definition, bool)
	// Names are the names of all known tasks.
	Names() []string
}

// TaskList is a fixed list of tasks.
func TaskList(definitions ...job.Definition) Tasks {
	list := make(taskList, len(definitions))
	for _, d := range definitions {
		list[d.Name] = d
	}
	return list
}

type taskList map[string]job.Definition

func (l taskList) Task(name string) (job.Definition, bool) {
	d, known := l[name]
	return d, known
}

func (l taskList) Names() []string {
	names := make([]string, 0, len(l))
	for name := range l {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Set is a compiled set of triggers. It never changes; a [Runner] swaps one for another.
type Set struct {
	cfg      Config
	tasks    Tasks
	rules    []*rule // in the order that they were given in
	byName   map[string]*rule
	exact    map[string][]*rule
	patterns []*rule
	warnings []error
}

// rule is a compiled trigger.
type rule struct {
	Trigger
	place   int
	pattern events.Pattern
	when    *expression // nil: every event
	with    node        // nil: the event's data
	options []job.Option

	revision int64 // of one from the store, else 0
	off      bool  // switched off in the store
}

// Compile checks triggers and makes them ready to run. The error joins a [Fault] for everything that is wrong: names, event
// type patterns, expressions, tasks, and payloads that can't fit their task's schema. No trigger runs while one is wrong.
func Compile(triggers []Trigger, tasks Tasks, cfg Config) (*Set, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure triggers: %w", err)
	}
	c, err := newCompiler(cfg.withDefaults())
	if err != nil {
		return nil, err
	}
	return c.compileSet(triggers, tasks)
}

func (c *compiler) compileSet(triggers []Trigger, tasks Tasks) (*Set, error) {
	s := newSet(c.cfg, tasks)
	var faults []error
	for _, t := range triggers {
		r, found := s.compile(c, t)
		faults = append(faults, found...)
		s.add(r)
	}
	faults = append(faults, checkUnique(triggers))
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return s, nil
}

func newSet(cfg Config, tasks Tasks) *Set {
	return &Set{cfg: cfg, tasks: tasks, byName: make(map[string]*rule), exact: make(map[string][]*rule)}
}

func (s *Set) compile(c *compiler, t Trigger) (*rule, []error) {
	r := &rule{Trigger: t}
	faults := t.check()
	r.pattern, _ = events.CompilePattern(t.On) // its fault is told by check
	for _, o := range t.optionsByPath() {
		r.options = append(r.options, o.option)
	}
	if t.When != "" {
		var err error
		if r.when, err = c.compileFilter(t.When); err != nil {
			faults = append(faults, t.expressionFault("when", 0, err))
		}
	}
	if t.With != nil {
		var found []error
		r.with, found = c.compileMapping(&t)
		faults = append(faults, found...)
	}
	if t.Run != "" {
		faults = append(faults, s.checkTask(r)...)
	}
	return r, slices.DeleteFunc(faults, func(err error) bool {
		f, ok := errors.AsType[*Fault](err)
		return ok && t.origin.told(f.Path)
	})
}

func (c *compiler) compileFilter(source string) (*expression, error) {
	x, err := c.compile(source)
	if err != nil {
		return nil, err
	}
	if k := x.typ.Kind(); k != cel.BoolKind && k != cel.DynKind {
		return nil, fmt.Errorf("gives %s, a filter must give a bool: compare it with something", x.typ)
	}
	return x, nil
}

func (s *Set) checkTask(r *rule) []error {
	d, known := s.tasks.Task(r.Run)
	if !known {
		names := s.tasks.Names()
		fault := r.fault("run", "no task %q%s (known: %s): declare the task in the worker, or mend the name",
			truncate(r.Run), suggest.DidYouMean(truncate(r.Run), names), listed(names))
		if s.cfg.AllowUnknownTasks {
			s.warnings = append(s.warnings, fault)
			return nil
		}
		return []error{fault}
	}
	if r.with == nil {
		return nil
	}
	return checkPayload(&r.Trigger, d, r.with)
}

func listed(names []string) string {
	const most = 20
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > most:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// add makes the rule findable. A disabled one can only be replayed.
func (s *Set) add(r *rule) {
	r.place = len(s.rules)
	s.rules = append(s.rules, r)
	s.byName[r.Name] = r
	switch {
	case r.Disabled, r.off:
	case !strings.Contains(r.On, "*"):
		s.exact[r.On] = append(s.exact[r.On], r)
	default:
		s.patterns = append(s.patterns, r)
	}
}

// Active are the names of the triggers that fire by themselves, in the order that they were given in.
func (s *Set) Active() []string {
	names := make([]string, 0, len(s.rules))
	for _, r := range s.rules {
		if !r.Disabled && !r.off {
			names = append(names, r.Name)
		}
	}
	return names
}

// Triggers are the triggers of the set, in the order that they were given in.
func (s *Set) Triggers() []Trigger {
	triggers := make([]Trigger, len(s.rules))
	for i, r := range s.rules {
		triggers[i] = r.Trigger
	}
	return triggers
}

// Warnings are faults that don't keep the set from running: tasks that nobody knows yet.
func (s *Set) Warnings() []error { return s.warnings }

// matching calls fn for each enabled rule of the event type, in order.
func (s *Set) matching(eventType string, fn func(*rule)) {
	exact := s.exact[eventType]
	for _, r := range s.patterns {
		if !r.pattern.Match(eventType) {
			continue
		}
		for len(exact) > 0 && exact[0].place < r.place {
			fn(exact[0])
			exact = exact[1:]
		}
		fn(r)
	}
	for _, r := range exact {
		fn(r)
	}
}

// fullName is the rule's name among those of all groups, as a replay for one trigger gives it.
func (s *Set) fullName(r *rule) string {
	if group := s.cfg.group(); group != "" {
		return group + ":" + r.Name
	}
	return r.Name
}
