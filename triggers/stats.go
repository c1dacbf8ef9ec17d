package triggers

import (
	"sync"
	"sync/atomic"
)

// Stats are the counters of a runner since its process began. A redelivered event counts again.
type Stats struct {
	// Events were looked at, whether or not a trigger matched.
	Events uint64 `json:"events"`
	// Triggers are the counters by trigger name, those of replaced sets included.
	Triggers map[string]TriggerStats `json:"triggers"`
}

// TriggerStats are the counters of one trigger.
type TriggerStats struct {
	// Matches passed the pattern and the filter.
	Matches uint64 `json:"matches"`
	// Jobs were stored for them.
	Jobs uint64 `json:"jobs"`
	// Duplicates had a job already: a redelivered event, or one refused by Unique.
	Duplicates uint64 `json:"duplicates"`
	// Absent is how often the filter named a field that the event doesn't have: that is no match. If it grows with
	// every event, the filter may have a typing error.
	Absent uint64 `json:"absent"`
	// Dead is how many matches failed for good and left a dead match.
	Dead uint64 `json:"dead"`
}

type counters struct {
	events   atomic.Uint64
	triggers sync.Map // name -> *triggerCounters
}

type triggerCounters struct {
	matches, jobs, duplicates, absent, dead atomic.Uint64
}

func (c *counters) of(trigger string) *triggerCounters {
	if t, ok := c.triggers.Load(trigger); ok {
		return t.(*triggerCounters)
	}
	t, _ := c.triggers.LoadOrStore(trigger, new(triggerCounters))
	return t.(*triggerCounters)
}

func (c *counters) stats() Stats {
	s := Stats{Events: c.events.Load(), Triggers: make(map[string]TriggerStats)}
	c.triggers.Range(func(name, value any) bool {
		t := value.(*triggerCounters)
		s.Triggers[name.(string)] = TriggerStats{
			Matches: t.matches.Load(), Jobs: t.jobs.Load(), Duplicates: t.duplicates.Load(),
			Absent: t.absent.Load(), Dead: t.dead.Load(),
		}
		return true
	})
	return s
}

func (s *TriggerStats) add(other TriggerStats) {
	s.Matches += other.Matches
	s.Jobs += other.Jobs
	s.Duplicates += other.Duplicates
	s.Absent += other.Absent
	s.Dead += other.Dead
}
