package triggers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// What a process reports is bounded, and forgotten when it is silent for a while. The list of rules is kept once for all processes
// that have the same.
const (
	reportFor     = 20 * time.Second
	reportSetFor  = 10 * time.Minute
	maxReported   = 2000
	maxFaultsTold = 20
	maxFaultTold  = 500
)

// The origins of a trigger.
const (
	OriginCode = "code"
	OriginFile = "file"
	OriginAPI  = "api" // the store
)

// Effective is a trigger as a process has it.
type Effective struct {
	Name   string `json:"name"`
	Origin string `json:"origin"`
	// Place is the file and line of a trigger from a file.
	Place string `json:"place,omitempty"`
	On    string `json:"on"`
	Run   string `json:"run"`
	// Disabled says that its definition has it off.
	Disabled bool `json:"disabled,omitempty"`
	// Off says that it was switched off in the store.
	Off bool `json:"off,omitempty"`
	// Revision is that of a trigger from the store.
	Revision int64 `json:"revision,omitempty"`
	// Fault is why a trigger of the store doesn't run in this process.
	Fault string `json:"fault,omitempty"`
}

func (e Effective) place() string {
	if e.Place != "" {
		return e.Place
	}
	return "code"
}

func effectiveOf(r *rule) Effective {
	e := Effective{Name: r.Name, Origin: OriginCode, On: r.On, Run: r.Run, Disabled: r.Disabled, Off: r.off, Revision: r.revision}
	switch {
	case r.revision > 0:
		e.Origin = OriginAPI
	case r.origin.file != "":
		e.Origin, e.Place = OriginFile, fmt.Sprintf("%s:%d", r.origin.file, r.origin.line(""))
	}
	return e
}

// Status is what a process runs and what stands in its way.
type Status struct {
	Triggers []Effective `json:"triggers"`
	// Faults keep the files from being taken: the rules are those of before.
	Faults      []string  `json:"faults,omitempty"`
	FaultsSince time.Time `json:"faults_since,omitzero"`
	// FilesLoaded is when the files were taken last.
	FilesLoaded time.Time `json:"files_loaded,omitzero"`
	// Loaded and Refused count how often changed files or a changed store were taken, and how often files were refused.
	Loaded  uint64 `json:"loaded"`
	Refused uint64 `json:"refused"`
	// Revision is the newest change of the store that is taken.
	Revision int64 `json:"revision,omitempty"`
	// StoreGone says that the store was flushed, and its rules are those of before.
	StoreGone bool `json:"store_gone,omitempty"`
	// Idle says that the process takes no events: it has no rules, or others have rules that it hasn't.
	Idle bool `json:"idle,omitempty"`
}

// Status tells what this process runs, and the faults that keep it from running what it should.
func (r *Rules) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Status{
		Faults: faultTexts(r.files.fault), FaultsSince: r.files.since, FilesLoaded: r.files.loaded,
		Loaded: r.loaded.Load(), Refused: r.refused.Load(),
		Revision: r.stored.revision, StoreGone: r.flushed, Idle: !r.feeds(),
	}
	set := r.set.Load()
	s.Triggers = make([]Effective, 0, len(set.rules)+len(r.leftOut))
	for _, rule := range set.rules {
		s.Triggers = append(s.Triggers, effectiveOf(rule))
	}
	for _, name := range slices.Sorted(maps.Keys(r.leftOut)) {
		stored := r.stored.records[name]
		e := Effective{Name: name, Origin: OriginAPI, Off: stored.Off, Revision: stored.Revision, Fault: cut(r.leftOut[name], maxFaultTold)}
		if t := stored.Trigger; t != nil {
			e.On, e.Run, e.Disabled = t.On, t.Run, t.Disabled
		}
		s.Triggers = append(s.Triggers, e)
	}
	return s
}

func faultTexts(err error) []string {
	if err == nil {
		return nil
	}
	lines := strings.Split(err.Error(), "\n") // a joined error has a line for each
	if len(lines) > maxFaultsTold {
		lines = append(lines[:maxFaultsTold:maxFaultsTold], fmt.Sprintf("and %d more", len(lines)-maxFaultsTold))
	}
	for i, line := range lines {
		lines[i] = cut(line, maxFaultTold)
	}
	return lines
}

// Process is what one process of the group reports.
type Process struct {
	ID      string    `json:"id"`
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	// Own says that it has rules of code or files.
	Own bool `json:"own,omitempty"`
	// Stats are the counters since the process began.
	Stats map[string]TriggerStats `json:"stats,omitempty"`
	// More is how many triggers it has beyond those that are listed.
	More int `json:"more,omitempty"`
	Status

	// Set names the list of triggers, which is kept apart: other processes have the same.
	Set string `json:"set"`
}

// report writes what this process runs and reads the store's version in the same round trip.
func (f *follower) report(ctx context.Context) (version, error) {
	p, list, err := f.process()
	if err != nil {
		return version{}, err
	}
	record, err := json.Marshal(p)
	if err != nil {
		return version{}, fmt.Errorf("report triggers: %w", err)
	}
	s := f.from.Store
	var kept *redis.BoolCmd
	var at *redis.SliceCmd
	_, err = s.rdb.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.SAdd(ctx, s.keys.processes, p.ID)
		pipe.Set(ctx, s.keys.process+p.ID, record, reportFor)
		if p.Set == f.reported {
			kept = pipe.PExpire(ctx, s.keys.set+p.Set, reportSetFor)
		} else {
			pipe.Set(ctx, s.keys.set+p.Set, list, reportSetFor)
		}
		if f.reported == "" {
			pipe.Publish(ctx, s.keys.changed, "process") // those without rules of their own make way
		}
		at = pipe.HMGet(ctx, s.keys.version, versionFields...)
		return nil
	})
	if err != nil {
		return version{}, fmt.Errorf("report triggers: %w", err)
	}
	f.reported = p.Set
	if kept != nil && !kept.Val() {
		f.reported = "" // flushed: the next one writes it
	}
	return versionOf(at.Val()), nil
}

func (f *follower) process() (p Process, list []byte, err error) {
	p = Process{ID: f.id, PID: os.Getpid(), Started: f.started, Status: f.Status()}
	p.Host, _ = os.Hostname()
	f.mu.Lock()
	p.Own = f.ownSince
	if len(f.runners) > 0 {
		p.Stats = f.runners[0].Stats().Triggers
	}
	f.mu.Unlock()
	triggers := p.Triggers
	p.Triggers = nil
	if len(triggers) > maxReported {
		p.More = len(triggers) - maxReported
		triggers = triggers[:maxReported]
	}
	for name, stats := range p.Stats {
		if stats == (TriggerStats{}) || len(p.Stats) > maxReported {
			delete(p.Stats, name)
		}
	}
	if list, err = json.Marshal(triggers); err != nil {
		return p, nil, fmt.Errorf("report triggers: %w", err)
	}
	sum := sha256.Sum256(list)
	p.Set = hex.EncodeToString(sum[:16])
	return p, list, nil
}

// Processes are those of the group that run, with what each of them has.
func (s *Store) Processes(ctx context.Context) ([]Process, error) {
	processes, err := s.processRecords(ctx)
	if err != nil || len(processes) == 0 {
		return nil, err
	}
	lists := make(map[string][]Effective)
	keys := []string{}
	for _, p := range processes {
		if _, known := lists[p.Set]; !known {
			lists[p.Set] = nil
			keys = append(keys, p.Set)
		}
	}
	prefixed := make([]string, len(keys))
	for i, key := range keys {
		prefixed[i] = s.keys.set + key
	}
	texts, err := s.rdb.MGet(ctx, prefixed...).Result()
	if err != nil {
		return nil, fmt.Errorf("read what processes run: %w", err)
	}
	for i, text := range texts {
		var list []Effective
		if text, ok := text.(string); ok && json.Unmarshal([]byte(text), &list) == nil {
			lists[keys[i]] = list
		}
	}
	for i := range processes {
		processes[i].Triggers = lists[processes[i].Set]
	}
	return processes, nil
}

// processRecords are the processes without their triggers. Those that have been silent for too long are forgotten.
func (s *Store) processRecords(ctx context.Context) ([]Process, error) {
	ids, err := s.rdb.SMembers(ctx, s.keys.processes).Result()
	if err != nil || len(ids) == 0 {
		return nil, wrapped("list processes", err)
	}
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = s.keys.process + id
	}
	texts, err := s.rdb.MGet(ctx, keys...).Result()
	if err != nil {
		return nil, wrapped("list processes", err)
	}
	processes := make([]Process, 0, len(ids))
	for i, text := range texts {
		text, there := text.(string)
		if !there {
			// It adds itself again should it still live. A reader that may not write leaves it.
			_ = s.rdb.SRem(ctx, s.keys.processes, ids[i]).Err()
			continue
		}
		var p Process
		if err := json.Unmarshal([]byte(text), &p); err == nil {
			processes = append(processes, p)
		}
	}
	return processes, nil
}

func (s *Store) forget(ctx context.Context, id string) error {
	_, err := s.rdb.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.SRem(ctx, s.keys.processes, id)
		p.Del(ctx, s.keys.process+id)
		p.Publish(ctx, s.keys.changed, "process")
		return nil
	})
	return err
}

// own are the triggers that stand in code or files of a process, by name.
func (s *Store) own(ctx context.Context) (map[string]Effective, error) {
	processes, err := s.Processes(ctx)
	if err != nil {
		return nil, err
	}
	own := make(map[string]Effective)
	for _, p := range processes {
		for _, e := range p.Triggers {
			if e.Origin != OriginAPI {
				own[e.Name] = e
			}
		}
	}
	return own, nil
}

func wrapped(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}
