package triggers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// Sources are where the triggers of a process stand. The zero value has none.
type Sources struct {
	// Code are triggers written in Go.
	Code []Trigger
	// Files are read again whenever they change.
	Files []string
	// Store has those that are made at run time; nil for a process that takes none.
	Store *Store
}

// Rules are the triggers of a process, followed as they change: those of code, files and the store in one [Set]. Files are taken
// all or none: while one is faulty, the rules stay as they were. Of the store, a trigger that this process can't run is left
// out, and reported; the others run. Where names collide, code and files win.
type Rules struct {
	from     Sources
	tasks    Tasks
	compiler *compiler
	log      *slog.Logger
	id       string
	started  time.Time

	set     atomic.Pointer[Set]
	reread  chan struct{} // the files, whether they have changed or not
	relook  chan struct{} // at the store
	gate    chan struct{} // feeding may have changed
	feeding atomic.Bool
	refused atomic.Uint64
	loaded  atomic.Uint64

	mu        sync.Mutex // guards what follows
	own       *Set       // of code and files
	ownSince  bool       // own has had a rule, now or before
	othersOwn bool       // another process of the group has rules of its own
	files     fileState
	stored    snapshot
	flushed   bool // the store is gone, stored is what it was
	compiled  map[string]compiled
	leftOut   map[string]string // name -> why, of the store
	runners   []*Runner
}

// fileState is what was last made of the files.
type fileState struct {
	seen   signature // of the texts that were last compiled
	fault  error     // of those texts
	since  time.Time
	names  []string // the tasks that were known then
	loaded time.Time
}

// compiled is a rule of the store, or why there is none.
type compiled struct {
	revision int64
	changed  time.Time
	rule     *rule
	warnings []error
	fault    error
	names    []string // the tasks that were known then, if there is a fault
}

// ErrStoreAway says that nothing is wrong with the triggers, but Redis doesn't answer.
var ErrStoreAway = errors.New("the store of triggers can't be read")

// NewRules reads the files and the store. The error joins a [Fault] for everything that is wrong with code and files, or is an
// [ErrStoreAway]. A nil logger is slog.Default().
func NewRules(ctx context.Context, from Sources, tasks Tasks, cfg Config, log *slog.Logger) (*Rules, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure triggers: %w", err)
	}
	c, err := newCompiler(cfg.withDefaults())
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.Default()
	}
	r := &Rules{
		from: from, tasks: tasks, compiler: c, log: log, id: uuid.NewString(), started: time.Now().UTC(),
		reread: make(chan struct{}, 1), relook: make(chan struct{}, 1), gate: make(chan struct{}, 1),
		compiled: make(map[string]compiled),
	}
	if r.from.Store != nil && r.from.Store.compiler.cfg.Group != c.cfg.Group {
		return nil, fmt.Errorf("the store is of the group %q, the rules of %q: give both the same Config", r.from.Store.compiler.cfg.Group, c.cfg.Group)
	}
	texts := readFiles(r.from.Files)
	if r.own, err = r.compileOwn(texts); err != nil {
		return nil, err
	}
	r.files = fileState{seen: signatureOf(texts), loaded: time.Now().UTC()}
	if r.from.Store != nil {
		r.stored, err = r.from.Store.snapshot(ctx)
		if err == nil {
			err = r.seeOthers(ctx)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrStoreAway, err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.assemble("")
	return r, nil
}

// Set returns the triggers in use.
func (r *Rules) Set() *Set { return r.set.Load() }

// Reload reads the files again and looks at the store, as SIGHUP asks for. What comes of it is logged; it returns at once, and
// does nothing unless Run runs.
func (r *Rules) Reload() {
	wake(r.reread)
	wake(r.relook)
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run follows the files and the store until ctx ends. Outages of Redis and faulty files are told once, and waited out.
func (r *Rules) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	parts.Go(func() { r.followFiles(ctx) })
	if r.from.Store != nil {
		parts.Go(func() { r.followStore(ctx) })
	}
	parts.Wait()
	return nil
}

// drive keeps the runner's set the current one.
func (r *Rules) drive(runner *Runner) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.runners = append(r.runners, runner)
	runner.Swap(r.set.Load())
}

// compileOwn goes on with what it could read after a fault, so that one look tells all of them.
func (r *Rules) compileOwn(texts []fileText) (*Set, error) {
	rules, unread := parseFiles(texts)
	set, faulty := r.compiler.compileSet(append(rules, r.from.Code...), r.tasks)
	if err := errors.Join(unread, faulty); err != nil {
		return nil, err
	}
	return set, nil
}

// takeFiles makes what was read the rules, if it is good. A fault is told once, or when somebody asked for the look.
func (r *Rules) takeFiles(texts []fileText, asked bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files.seen, r.files.names = signatureOf(texts), r.tasks.Names() // before: a task that comes meanwhile is a new one
	own, err := r.compileOwn(texts)
	now := time.Now().UTC()
	if err != nil {
		if asked || r.files.fault == nil || r.files.fault.Error() != err.Error() {
			r.refused.Add(1)
			r.files.fault, r.files.since = err, now
			r.log.Error("triggers: the files are faulty, the rules stay as they were; mend the files, they are read again when they change", "err", err)
			wake(r.relook)
		}
		return
	}
	if r.files.fault != nil {
		r.log.Info("triggers: the files are good again", "after", now.Sub(r.files.since).Round(time.Millisecond))
	}
	r.files.fault, r.files.since, r.files.loaded = nil, time.Time{}, now
	r.own = own
	r.loaded.Add(1)
	r.assemble("files")
	wake(r.relook)
}

// fileFaultMayBeCured tells that tasks came since the files were refused: the fault may have been that one was not known.
func (r *Rules) fileFaultMayBeCured() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.files.fault != nil && !slices.Equal(r.files.names, r.tasks.Names())
}

// takeStored makes the snapshot the rules of the store.
func (r *Rules) takeStored(snap snapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.flushed {
		r.log.Info("triggers: the store is written again, its rules took over")
	}
	if snap.epoch != r.stored.epoch {
		clear(r.compiled) // its revisions count from 1 again
	}
	r.stored, r.flushed = snap, false
	r.loaded.Add(1)
	r.assemble("store")
}

// keepStored is for a store that is gone: a flush of Redis is no wish to have no rules.
func (r *Rules) keepStored() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stored.epoch != "" && !r.flushed {
		r.flushed = true
		r.log.Warn("triggers: the store is gone (was Redis flushed?), its rules stay until one is written again", "triggers", len(r.stored.records))
	}
}

// cureStored compiles the rules that were left out again if tasks came meanwhile.
func (r *Rules) cureStored() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.leftOut) == 0 {
		return
	}
	names := r.tasks.Names()
	for _, c := range r.compiled {
		if c.fault != nil && !slices.Equal(c.names, names) {
			r.assemble("tasks")
			return
		}
	}
}

// assemble joins the rules of all sources and puts them to use.
func (r *Rules) assemble(why string) {
	set := newSet(r.compiler.cfg, r.tasks)
	set.warnings = append(set.warnings, r.own.warnings...)
	for _, own := range r.own.rules {
		copied := *own
		copied.off = r.stored.records[own.Name].Off
		set.add(&copied)
	}
	leftOut := make(map[string]string)
	names := r.tasks.Names()
	for _, name := range slices.Sorted(maps.Keys(r.stored.records)) {
		s := r.stored.records[name]
		if s.Trigger == nil && s.Fault == nil {
			continue // a switch
		}
		c := r.compileStored(s, names)
		if c.fault != nil {
			leftOut[name] = c.fault.Error()
			continue
		}
		copied := *c.rule
		set.add(&copied)
		set.warnings = append(set.warnings, c.warnings...)
	}
	maps.DeleteFunc(r.compiled, func(name string, _ compiled) bool { _, there := r.stored.records[name]; return !there })
	before := r.set.Swap(set)
	for _, runner := range r.runners {
		runner.Swap(set)
	}
	r.tellLeftOut(leftOut)
	if why != "" {
		r.tellChanges(why, before, set)
	}
	r.ownSince = r.ownSince || len(r.own.rules) > 0
	r.openGate()
}

// compileStored compiles a rule of the store, unless it has not changed since; names are the tasks that are known.
func (r *Rules) compileStored(s Stored, names []string) compiled {
	if own := r.own.byName[s.Name]; own != nil {
		return compiled{fault: fmt.Errorf("a trigger of this name stands in %s, which wins: delete this one, or rename it", effectiveOf(own).place())}
	}
	c, known := r.compiled[s.Name]
	if known && c.revision == s.Revision && c.changed.Equal(s.Changed) && (c.fault == nil || slices.Equal(c.names, names)) {
		return c
	}
	c = compiled{revision: s.Revision, changed: s.Changed, fault: s.Fault}
	if s.Trigger != nil {
		scratch := newSet(r.compiler.cfg, r.tasks)
		rule, faults := scratch.compile(r.compiler, *s.Trigger)
		rule.revision = s.Revision
		c.rule, c.warnings, c.fault = rule, scratch.warnings, errors.Join(faults...)
	}
	if c.fault != nil {
		c.names = names
	}
	r.compiled[s.Name] = c
	return c
}

// tellLeftOut logs each rule of the store that can't run here once for each reason, and that it runs after all.
func (r *Rules) tellLeftOut(now map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if r.leftOut[name] != now[name] {
			r.log.Warn("triggers: a rule of the store can't run here and is left out, the others run; mend it, or start a worker that has its task",
				"trigger", name, "err", truncate(now[name]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.leftOut)) {
		if _, still := now[name]; !still && r.set.Load().byName[name] != nil {
			r.log.Info("triggers: a rule that was left out runs", "trigger", name)
		}
	}
	r.leftOut = now
}

// tellChanges logs what became of the rules.
func (r *Rules) tellChanges(why string, before, after *Set) {
	var added, changed, removed []string
	for _, rule := range after.rules {
		switch old := before.byName[rule.Name]; {
		case old == nil:
			added = append(added, rule.Name)
		case old.off != rule.off || !sameTrigger(old, rule):
			changed = append(changed, rule.Name)
		}
	}
	for _, rule := range before.rules {
		if after.byName[rule.Name] == nil {
			removed = append(removed, rule.Name)
		}
	}
	if len(added)+len(changed)+len(removed) == 0 {
		r.log.Info("triggers: read again, the rules are the same", "from", why, "triggers", len(after.Active()))
		return
	}
	r.log.Info("triggers: the rules have changed", "from", why, "triggers", len(after.Active()),
		"added", listed(added), "changed", listed(changed), "removed", listed(removed))
}

// openGate decides whether events are to be taken. A process without rules of its own must not take those of a process that has
// some: it would acknowledge what those rules wait for. And one that has no rules at all takes none, so that no group is made
// that holds back trimming.
func (r *Rules) openGate() {
	r.feeding.Store(r.ownSince || r.stored.epoch != "" && !r.othersOwn)
	wake(r.gate)
}

// feeds tells whether this process is to take events.
func (r *Rules) feeds() bool { return r.feeding.Load() }

func sameTrigger(a, b *rule) bool {
	x, y := a.Trigger, b.Trigger
	x.origin, y.origin = origin{}, origin{}
	return reflect.DeepEqual(x, y)
}
