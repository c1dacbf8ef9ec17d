package triggers

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
)

// The states of a trigger in its group.
const (
	StateActive   = "active"   // it fires
	StateDisabled = "disabled" // it doesn't: its definition or a switch says so
	StateFaulty   = "faulty"   // some process leaves it out
	StatePending  = "pending"  // no process has it yet, as it is now
	StateGone     = "gone"     // nothing but a switch is left of it
)

// Listed is a trigger as the processes of its group have it, and the store.
type Listed struct {
	Effective
	State string `json:"state"`
	// Stored is what the store holds under the name: the trigger itself, or a switch; nil if nothing.
	Stored *Stored `json:"-"`
	// Processes is how many run it as it is now.
	Processes int `json:"processes"`
	// Faults tell which process leaves it out, and why.
	Faults []string `json:"faults,omitempty"`
	// Stats are the counters of all running processes, each since it began.
	Stats TriggerStats `json:"stats"`
}

// Overview is what a group has.
type Overview struct {
	Triggers  []Listed
	Processes []Process
}

// Overview lists the triggers of all origins by name, and the processes of the group that run. What a process has is as it
// reported last, some seconds ago at most.
func (s *Store) Overview(ctx context.Context) (Overview, error) {
	snap, err := s.snapshot(ctx)
	if err != nil {
		return Overview{}, err
	}
	processes, err := s.Processes(ctx)
	if err != nil {
		return Overview{}, err
	}
	all := make(map[string]*Listed)
	for name, stored := range snap.records {
		l := &Listed{Effective: Effective{Name: name, Off: stored.Off}, Stored: &stored}
		if stored.Trigger != nil || stored.Fault != nil {
			l.Origin, l.Revision = OriginAPI, stored.Revision
		}
		if t := stored.Trigger; t != nil {
			l.On, l.Run, l.Disabled = t.On, t.Run, t.Disabled
		}
		if stored.Fault != nil {
			l.Faults = append(l.Faults, cut(stored.Fault.Error(), maxFaultTold))
		}
		all[name] = l
	}
	for _, p := range processes {
		for _, e := range p.Triggers {
			l := all[e.Name]
			if l == nil {
				if e.Origin == OriginAPI {
					continue // it was deleted a moment ago
				}
				l = &Listed{}
				all[e.Name] = l
			}
			l.add(p, e)
		}
	}
	list := make([]Listed, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		l := all[name]
		for _, p := range processes {
			l.Stats.add(p.Stats[name])
		}
		l.State = l.state()
		list = append(list, *l)
	}
	slices.SortFunc(processes, func(a, b Process) int { return cmp.Or(a.Started.Compare(b.Started), cmp.Compare(a.ID, b.ID)) })
	return Overview{Triggers: list, Processes: processes}, nil
}

// add takes what one process says of the trigger. Code and files win over the store, in the list as in the processes.
func (l *Listed) add(p Process, e Effective) {
	own := e.Origin != OriginAPI
	if own && (l.Origin == OriginAPI || l.Origin == "") {
		off := l.Off
		l.Effective, l.Processes = e, 0
		l.Revision, l.Off = 0, off
	}
	switch {
	case e.Fault != "":
		l.Faults = append(l.Faults, fmt.Sprintf("%s (process %d): %s", p.Host, p.PID, e.Fault))
	case own || l.Origin == OriginAPI && e.Revision == l.Revision:
		l.Processes++
	}
}

func (l *Listed) state() string {
	switch {
	case l.Origin == "":
		return StateGone
	case len(l.Faults) > 0 && l.Origin == OriginAPI:
		return StateFaulty
	case l.Disabled || l.Off:
		return StateDisabled
	case l.Processes == 0:
		return StatePending
	}
	return StateActive
}

// Lookup is [Store.Overview] of one name; [ErrNotFound] if nobody has it.
func (s *Store) Lookup(ctx context.Context, name string) (Listed, error) {
	all, err := s.Overview(ctx)
	if err != nil {
		return Listed{}, err
	}
	for _, l := range all.Triggers {
		if l.Name == name {
			return l, nil
		}
	}
	return Listed{}, fmt.Errorf("%w: %q", ErrNotFound, name)
}
