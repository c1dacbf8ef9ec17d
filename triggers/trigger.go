// Package triggers turns events into jobs by rules: an event type pattern, a filter, a task and its payload.
//
// Step 3 of 7: events hands over what happened, the rules that match it each become a job, and job stores them.
//
// What the package promises:
//
//   - A [Trigger] written in Go and one written in YAML are the same value, checked by the same [Compile], which reports
//     every fault at once, with its file and line. [NewRules] reports those of reading the files with them; a file that is no
//     YAML is told by its first one.
//   - An expression can't run away: its length, its cost, its memory and its time are bounded.
//   - [Runner.Handle] acknowledges an event after all its jobs are in Redis; a redelivered event fires each trigger once.
//   - A trigger that fails on an event for good leaves a dead match, which holds the event and can be replayed. The other
//     triggers, and the event itself, go on.
package triggers

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/job"
)

// Trigger is a rule: when an event of this type passes this filter, enqueue that task with this payload.
type Trigger struct {
	// Name is unique among all triggers: [a-z0-9][a-z0-9._-]*, at most 128 bytes. It is a part of the job's id, and what
	// "once per event and trigger" hangs on: a renamed trigger is a new one.
	Name string
	// On is the pattern of event types, see [events.Pattern].
	On string
	// When is a filter in CEL that gives a bool; empty lets every event pass. It sees one variable, event, with id, source,
	// type, subject, time, data and the event's extensions.
	When string
	// Run is the task's name.
	Run string
	// With is the payload: any nested value that has a JSON form. A string that is exactly one ${CEL} becomes the value of
	// the expression; within other text, ${CEL} is written as text; $${ is a literal ${. Nil passes the event's data as it
	// is; data that isn't JSON is passed as a JSON string, in base64 unless it is UTF-8.
	With any

	// Queue, Timeout, Retention, Unique and MaxRetry replace the task's own; zero or nil leaves them.
	Queue     string
	Timeout   time.Duration
	Retention time.Duration
	Unique    time.Duration
	MaxRetry  *int
	// In delays the job, counted from the match.
	In time.Duration

	// Disabled keeps the trigger checked but never fires it.
	Disabled bool

	origin origin
}

// origin is where a trigger stands in a file; empty for one made in Go.
type origin struct {
	file  string
	lines map[string]int // by path: "" is the trigger, "when", "with.json.message", "with.list[0]"

	// unread are the paths of which a fault is told that kept them from being read: true with all that is in them, false where only
	// a part of them is missing.
	unread map[string]bool
}

// told tells that a fault of the path comes from one that was found when the file was read.
func (o origin) told(path string) bool {
	if _, unread := o.unread[path]; unread {
		return true
	}
	if _, partly := o.unread[""]; partly && o.lines[path] == 0 && !strings.ContainsAny(path, ".[") {
		return true // a key that stood perhaps in what could not be read
	}
	for path != "" {
		path = around(path)
		if o.unread[path] {
			return true
		}
	}
	return false
}

// around is the path of what the path is in.
func around(path string) string {
	return path[:max(strings.LastIndexAny(path, ".["), 0)]
}

// line returns the line of the path or of the nearest thing around it.
func (o origin) line(path string) int {
	for path != "" {
		if n, ok := o.lines[path]; ok {
			return n
		}
		path = around(path)
	}
	return o.lines[""]
}

// Fault is one thing that is wrong with a trigger or its file.
type Fault struct { //nolint:errname // it is a fault of the rules, and reads as one
	File    string // "" for a trigger made in Go
	Line    int    // 0 if not known
	Trigger string // "" if the fault is the file's
	Path    string // what of the trigger: "when", "with.json.message", "with.list[0]", `with["a.b"]`
	Problem string

	key string // an unknown one, which has no path
}

// Pointer is where the fault is as a JSON pointer into the trigger's JSON form: "/with/json/message". It is empty where the
// fault is the trigger's as a whole.
func (f *Fault) Pointer() string {
	if f.key != "" {
		return pointer(child("", f.key))
	}
	return pointer(f.Path)
}

func (f *Fault) Error() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File)
		if f.Line > 0 {
			fmt.Fprintf(&b, ":%d", f.Line)
		}
		b.WriteString(": ")
	}
	if f.Trigger != "" {
		fmt.Fprintf(&b, "trigger %q: ", f.Trigger)
	}
	if f.Path != "" {
		b.WriteString(f.Path + ": ")
	}
	return b.String() + f.Problem
}

// Faults are the faults that an error joins, at any depth, in their order; nil if it has none.
func Faults(err error) []*Fault {
	switch e := err.(type) { //nolint:errorlint // it walks the tree itself
	case *Fault:
		return []*Fault{e}
	case interface{ Unwrap() []error }:
		var all []*Fault
		for _, one := range e.Unwrap() {
			all = append(all, Faults(one)...)
		}
		return all
	case interface{ Unwrap() error }:
		return Faults(e.Unwrap())
	}
	return nil
}

func (t *Trigger) fault(path, format string, args ...any) *Fault {
	return &Fault{
		File: t.origin.file, Line: t.origin.line(path), Trigger: t.Name, Path: path,
		Problem: fmt.Sprintf(format, args...),
	}
}

// expressionFault adds the line within an expression to that of its text.
func (t *Trigger) expressionFault(path string, linesBefore int, err error) *Fault {
	f := t.fault(path, "%v", err)
	if f.Line > 0 {
		f.Line += linesBefore
		if in := new(expressionError); errors.As(err, &in) {
			f.Line += in.line - 1
		}
	}
	return f
}

const maxTriggerName = 128

var namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)

// check finds what is wrong with the trigger by itself: no expression and no task is looked at.
func (t *Trigger) check() []error {
	var faults []error
	fault := func(path, format string, args ...any) { faults = append(faults, t.fault(path, format, args...)) }
	switch {
	case t.Name == "":
		fault("name", "is missing: every trigger needs a name of its own")
	case len(t.Name) > maxTriggerName:
		fault("name", "has %d bytes, at most %d are allowed", len(t.Name), maxTriggerName)
	case !namePattern.MatchString(t.Name):
		fault("name", "%q: use small letters, digits, '.', '_' and '-', and begin with a letter or digit", t.Name)
	}
	if t.On == "" {
		fault("on", "is missing: name the event type that fires the trigger, or ** for every type")
	} else if err := events.ValidatePattern(t.On); err != nil {
		fault("on", "%v", err)
	}
	if t.Run == "" {
		fault("run", "is missing: name the task that the trigger runs")
	}
	if t.In < 0 {
		fault("in", "is %v: it must not be negative", t.In)
	}
	for _, o := range t.optionsByPath() {
		// A definition without a schema checks nothing but the option.
		if _, err := (job.Definition{Name: "task", Defaults: job.Defaults{Queue: job.DefaultQueue}}).Request([]byte("null"), o.option); err != nil {
			fault(o.path, "%s", strings.TrimPrefix(err.Error(), "enqueue task: "))
		}
	}
	return faults
}

type pathOption struct {
	path   string
	option job.Option
}

func (t *Trigger) optionsByPath() []pathOption {
	var opts []pathOption
	if t.Queue != "" {
		opts = append(opts, pathOption{"queue", job.Queue(t.Queue)})
	}
	if t.Timeout != 0 {
		opts = append(opts, pathOption{"timeout", job.Timeout(t.Timeout)})
	}
	if t.Retention != 0 {
		opts = append(opts, pathOption{"retention", job.Retention(t.Retention)})
	}
	if t.Unique != 0 {
		opts = append(opts, pathOption{"unique", job.Unique(t.Unique)})
	}
	if t.MaxRetry != nil {
		opts = append(opts, pathOption{"max_retry", job.MaxRetry(*t.MaxRetry)})
	}
	if t.In > 0 {
		opts = append(opts, pathOption{"in", job.In(t.In)})
	}
	return opts
}

// checkUnique refuses a name that is used twice, in whichever files.
func checkUnique(triggers []Trigger) error {
	first := make(map[string]*Trigger, len(triggers))
	var faults []error
	for i := range triggers {
		t := &triggers[i]
		if t.Name == "" {
			continue
		}
		if other, taken := first[t.Name]; taken {
			where := "before"
			if other.origin.file != "" {
				where = fmt.Sprintf("in %s:%d", other.origin.file, other.origin.line("name"))
			}
			faults = append(faults, t.fault("name", "is used already %s: give this one another name", where))
			continue
		}
		first[t.Name] = t
	}
	return errors.Join(faults...)
}
