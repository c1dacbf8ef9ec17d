package triggers

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
)

// MaxStored is how many records a store holds at most.
const MaxStored = 1000

// The bounds on what a change says of itself.
const (
	maxBy   = 200
	maxNote = 1000
)

// Errors of a Store.
var (
	// ErrNotFound says that there is no trigger of that name.
	ErrNotFound = errors.New("no such trigger")
	// ErrConflict says that the trigger was changed since it was read: read it again, then decide.
	ErrConflict = errors.New("the trigger was changed meanwhile")
	// ErrReadOnly says that the trigger stands in a file or in code: it can be switched off here, and changed there.
	ErrReadOnly = errors.New("the trigger can't be changed here")
	// ErrStoreFull says that [MaxStored] records are there already.
	ErrStoreFull = errors.New("too many triggers")
)

// ConflictError is an [ErrConflict] with what is there now.
type ConflictError struct {
	Name     string
	Revision int64 // 0: there is none
}

func (e *ConflictError) Error() string {
	if e.Revision == 0 {
		return fmt.Sprintf("%v: %q is not there", ErrConflict, e.Name)
	}
	return fmt.Sprintf("%v: %q has revision %d", ErrConflict, e.Name, e.Revision)
}

// Is makes it an ErrConflict.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// Store keeps the triggers that are made at run time, in Redis, for all processes of one group ([Config].Group): those that
// follow it with [Rules] see a change at once. It is safe for concurrent use.
type Store struct {
	rdb      redis.UniversalClient
	tasks    Tasks
	compiler *compiler
	keys     storeKeys
}

type storeKeys struct {
	rules, version, changed, processes, process, set string
}

// NewStore returns a store over rdb, which stays the caller's to close. tasks is what triggers may run: what a worker serves,
// or in a process that runs nothing itself, the fleet's catalog. It doesn't talk to Redis yet.
func NewStore(rdb redis.UniversalClient, tasks Tasks, cfg Config) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure triggers: %w", err)
	}
	c, err := newCompiler(cfg.withDefaults())
	if err != nil {
		return nil, err
	}
	prefix := "bellhop:{triggers}:" + c.cfg.Group + ":"
	return &Store{rdb: rdb, tasks: tasks, compiler: c, keys: storeKeys{
		rules: prefix + "rules", version: prefix + "version", changed: prefix + "changed",
		processes: prefix + "processes", process: prefix + "process:", set: prefix + "set:",
	}}, nil
}

// Stored is what the store holds under one name.
type Stored struct {
	Name string
	// Trigger is nil for a switch alone, which holds a trigger of a file or of code off. Its Disabled is Off.
	Trigger *Trigger
	// Off says that the trigger is switched off, wherever it stands.
	Off bool
	// Revision is of the last change. A later change of any trigger has a higher one.
	Revision int64
	Created  time.Time
	Changed  time.Time
	// By and Note are who made the last change and what they had to say.
	By, Note string
	// Fault is why Trigger can't be read: it was written by a newer release, say.
	Fault error
}

// Any and None are what a [Change] may ask of the revision; the others are the one that the trigger must have.
const (
	Any  int64 = 0  // whatever is there
	None int64 = -1 // there must be no trigger of that name
)

// Change is who changes a trigger, why, and what they believe is there.
type Change struct {
	Revision int64
	By, Note string
}

func (c Change) validate() error {
	if len(c.By) > maxBy || len(c.Note) > maxNote {
		return fmt.Errorf("who has %d bytes and the note %d: at most %d and %d are allowed", len(c.By), len(c.Note), maxBy, maxNote)
	}
	return nil
}

// Check compiles a trigger under the store's limits; the error joins a [Fault] for everything that is wrong with it.
func (s *Store) Check(t Trigger) error {
	_, err := s.compiler.compileSet([]Trigger{t}, s.tasks)
	return err
}

// Put makes a trigger, or replaces the one of its name; whether it is on is told by Disabled. The error joins a [Fault] for
// everything that is wrong with it, or is an [ErrConflict], [ErrReadOnly], [ErrStoreFull] or a fault of Redis; after the last,
// the change may have been made.
func (s *Store) Put(ctx context.Context, t Trigger, c Change) (Stored, error) {
	t.origin = origin{}
	if err := errors.Join(s.Check(t), c.validate()); err != nil {
		return Stored{}, err
	}
	text, err := json.Marshal(t)
	if err != nil {
		return Stored{}, err
	}
	// What is read back is what is kept: a payload of Go types becomes plain JSON here, not at the next process.
	plain, err := ParseJSON(text)
	if err != nil {
		return Stored{}, err
	}
	own, err := s.own(ctx)
	if err != nil {
		return Stored{}, err
	}
	if where, taken := own[t.Name]; taken {
		return Stored{}, fmt.Errorf("%w: %q stands in %s: change it there, or take another name", ErrReadOnly, t.Name, where.place())
	}
	return s.change(ctx, t.Name, c, func(Stored) (*Stored, error) {
		return &Stored{Trigger: &plain, Off: plain.Disabled}, nil
	})
}

// Delete removes a trigger. Errors are those of [Store.Put], and [ErrNotFound].
func (s *Store) Delete(ctx context.Context, name string, c Change) error {
	own, err := s.own(ctx)
	if err != nil {
		return err
	}
	where, readOnly := own[name]
	_, err = s.change(ctx, name, c, func(now Stored) (*Stored, error) {
		switch {
		case readOnly && now.Trigger == nil && now.Fault == nil:
			return nil, fmt.Errorf("%w: %q stands in %s: remove it there, or switch it off", ErrReadOnly, name, where.place())
		case now.Revision == 0 && now.Fault == nil:
			return nil, fmt.Errorf("%w: %q", ErrNotFound, name)
		case readOnly && now.Off:
			return &Stored{Off: true}, nil // the switch is for the file's trigger of that name
		}
		return nil, nil
	})
	return err
}

// Switch turns a trigger on or off, also one of a file or of code; one that its file or code has disabled can't be turned on.
// Errors are those of [Store.Put], and [ErrNotFound].
func (s *Store) Switch(ctx context.Context, name string, on bool, c Change) (Stored, error) {
	own, err := s.own(ctx)
	if err != nil {
		return Stored{}, err
	}
	where, elsewhere := own[name]
	if elsewhere && on && where.Disabled {
		return Stored{}, fmt.Errorf("%w: %q is disabled in %s: change it there", ErrReadOnly, name, where.place())
	}
	return s.change(ctx, name, c, func(now Stored) (*Stored, error) {
		switch {
		case now.Revision == 0 && !elsewhere:
			return nil, fmt.Errorf("%w: %q", ErrNotFound, name)
		case now.Fault != nil:
			return nil, fmt.Errorf("trigger %q can't be read: %w", name, now.Fault)
		case now.Trigger == nil && on:
			return nil, nil // nothing but a switch was there
		}
		if now.Trigger != nil {
			now.Trigger.Disabled = !on
		}
		return &Stored{Trigger: now.Trigger, Off: !on}, nil
	})
}

// Get returns one record; [ErrNotFound] if there is none.
func (s *Store) Get(ctx context.Context, name string) (Stored, error) {
	now, err := s.get(ctx, name)
	if err == nil && now.Revision == 0 {
		err = fmt.Errorf("%w: %q", ErrNotFound, name)
	}
	return now, err
}

func (s *Store) get(ctx context.Context, name string) (Stored, error) {
	text, err := s.rdb.HGet(ctx, s.keys.rules, name).Result()
	switch {
	case errors.Is(err, redis.Nil):
		return Stored{Name: name}, nil
	case err != nil:
		return Stored{}, fmt.Errorf("read trigger %q: %w", name, err)
	}
	return decodeStored(name, text), nil
}

//go:embed store_change.lua
var storeChangeSource string

var storeChangeScript = redis.NewScript(storeChangeSource)

// maxTries is how often a change that takes whatever is there is tried when others are faster.
const maxTries = 10

// change replaces the record by what next makes of it; nil removes it. It is written only if nobody was faster.
func (s *Store) change(ctx context.Context, name string, c Change, next func(now Stored) (*Stored, error)) (Stored, error) {
	if err := c.validate(); err != nil {
		return Stored{}, err
	}
	for try := 1; ; try++ {
		now, err := s.get(ctx, name)
		if err != nil {
			return Stored{}, err
		}
		if c.Revision != Any && max(c.Revision, 0) != now.Revision {
			return Stored{}, &ConflictError{Name: name, Revision: now.Revision}
		}
		to, err := next(now)
		if err != nil {
			return Stored{}, err
		}
		if to == nil && now.Revision == 0 && now.Fault == nil {
			return now, nil // what is not there need not be removed
		}
		done, err := s.write(ctx, now, to, c)
		if c.Revision == Any && try < maxTries && errors.Is(err, ErrConflict) {
			continue
		}
		return done, err
	}
}

func (s *Store) write(ctx context.Context, now Stored, to *Stored, c Change) (Stored, error) {
	done := Stored{Name: now.Name, Created: now.Created, By: c.By, Note: c.Note}
	text := ""
	if to != nil {
		done.Trigger, done.Off = to.Trigger, to.Off
		var err error
		if text, err = encodeStored(done); err != nil {
			return Stored{}, err
		}
	}
	answer, err := storeChangeScript.Run(ctx, s.rdb, []string{s.keys.rules, s.keys.version},
		now.Name, now.Revision, text, uuid.NewString(), uuid.NewString(), MaxStored, s.keys.changed).Int64Slice()
	if err != nil {
		return Stored{}, fmt.Errorf("change trigger %q: %w", now.Name, err)
	}
	switch answer[0] {
	case 0:
		return Stored{}, &ConflictError{Name: now.Name, Revision: answer[1]}
	case -1:
		return Stored{}, fmt.Errorf("%w: %d are there, that is the most: delete some, or write them in a file", ErrStoreFull, answer[1])
	}
	done.Revision, done.Changed = answer[1], time.UnixMilli(answer[2]).UTC()
	if done.Created.IsZero() {
		done.Created = done.Changed
	}
	return done, nil
}

// record is the stored form of a Stored, after its revision and time.
type record struct {
	Trigger json.RawMessage `json:"trigger,omitempty"`
	Off     bool            `json:"off,omitempty"`
	Created time.Time       `json:"created,omitzero"`
	By      string          `json:"by,omitempty"`
	Note    string          `json:"note,omitempty"`
}

func encodeStored(s Stored) (string, error) {
	r := record{Off: s.Off, Created: s.Created, By: s.By, Note: s.Note}
	if s.Trigger != nil {
		t := *s.Trigger
		t.Disabled = false // Off says it
		text, err := json.Marshal(t)
		if err != nil {
			return "", err
		}
		r.Trigger = text
	}
	text, err := json.Marshal(r)
	return string(text), err
}

func decodeStored(name, text string) Stored {
	s := Stored{Name: name}
	parts := strings.SplitN(text, " ", 3)
	if len(parts) < 3 {
		s.Fault = errors.New("the record is damaged: delete it")
		return s
	}
	s.Revision, _ = strconv.ParseInt(parts[0], 10, 64)
	ms, _ := strconv.ParseInt(parts[1], 10, 64)
	s.Changed = time.UnixMilli(ms).UTC()
	var r record
	if err := json.Unmarshal([]byte(parts[2]), &r); err != nil {
		s.Fault = fmt.Errorf("the record is damaged: delete it, or write it anew: %w", err)
		return s
	}
	s.Off, s.By, s.Note = r.Off, r.By, r.Note
	if s.Created = r.Created; s.Created.IsZero() {
		s.Created = s.Changed
	}
	if r.Trigger == nil {
		return s
	}
	t, err := ParseJSON(r.Trigger)
	switch {
	case err != nil:
		s.Fault = err
	case t.Name != name:
		s.Fault = fmt.Errorf("the record holds trigger %q: delete it", truncate(t.Name))
	default:
		t.Disabled = s.Off
		s.Trigger = &t
	}
	return s
}

// snapshot is all that the store holds at one moment. A store that was never written, or was flushed, has no epoch.
type snapshot struct {
	version
	records map[string]Stored
}

// version tells one state of the store from all others, also where a failover has lost a change and the next one took its revision.
type version struct {
	epoch    string
	revision int64
	change   string
}

func versionOf(values []any) version {
	epoch, _ := values[0].(string)
	text, _ := values[1].(string)
	revision, _ := strconv.ParseInt(text, 10, 64)
	change, _ := values[2].(string)
	return version{epoch, revision, change}
}

var versionFields = []string{"epoch", "revision", "change"}

func (s *Store) snapshot(ctx context.Context) (snapshot, error) {
	var at *redis.SliceCmd
	var rules *redis.MapStringStringCmd
	_, err := s.rdb.TxPipelined(ctx, func(p redis.Pipeliner) error {
		at = p.HMGet(ctx, s.keys.version, versionFields...)
		rules = p.HGetAll(ctx, s.keys.rules)
		return nil
	})
	if err != nil {
		return snapshot{}, fmt.Errorf("read triggers: %w", err)
	}
	snap := snapshot{version: versionOf(at.Val()), records: make(map[string]Stored, len(rules.Val()))}
	for name, text := range rules.Val() {
		snap.records[name] = decodeStored(name, text)
	}
	return snap, nil
}

// All returns every record, by name.
func (s *Store) All(ctx context.Context) ([]Stored, error) {
	snap, err := s.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	return slices.SortedFunc(maps.Values(snap.records), func(a, b Stored) int { return cmp.Compare(a.Name, b.Name) }), nil
}
