package main

import (
	"fmt"
	"time"
)

// Plan is how much is measured.
type Plan struct {
	Rounds int `json:"rounds"`

	// Drain is about how long a drain takes: the backlog is chosen for it by a first, short one.
	Drain time.Duration `json:"drain_ns"`
	Cells []Cell        `json:"cells"`

	Enqueue time.Duration `json:"enqueue_ns"` // how long is enqueued
	Both    time.Duration `json:"both_ns"`    // how long is produced while it is drained

	PickupJobs   int           `json:"pickup_jobs"`
	Loaded       time.Duration `json:"loaded_ns"`
	LatenessJobs int           `json:"lateness_jobs"`
	LatenessSpan time.Duration `json:"lateness_span_ns"` // over which the jobs are scheduled
	Idle         time.Duration `json:"idle_ns"`
	Herd         time.Duration `json:"herd_ns"`
	MemoryJobs   int           `json:"memory_jobs"`

	// SlowRounds is how often the measurements are repeated that take long, most of it waiting: lateness, idle. Herd and memory vary
	// little and are measured once.
	SlowRounds int `json:"slow_rounds"`
}

// Cell is a fleet that drains.
type Cell struct {
	Processes   int `json:"processes"`
	Concurrency int `json:"concurrency"` // of each process
}

func (c Cell) String() string { return fmt.Sprintf("drain %dx%d", c.Processes, c.Concurrency) }

func fullPlan() Plan {
	p := Plan{
		Rounds: 3, SlowRounds: 3,
		Drain: 1500 * time.Millisecond, Enqueue: 1500 * time.Millisecond, Both: 3 * time.Second,
		PickupJobs: 200, Loaded: 4 * time.Second, LatenessJobs: 500, LatenessSpan: 10 * time.Second,
		Idle: 10 * time.Second, Herd: 5 * time.Second, MemoryJobs: 100_000,
	}
	for _, processes := range []int{1, 2, 4} {
		for _, concurrency := range []int{10, 64, 256} {
			p.Cells = append(p.Cells, Cell{processes, concurrency})
		}
	}
	return p
}

// shortPlan keeps what goals hang on.
func shortPlan() Plan {
	return Plan{
		Rounds: 2, SlowRounds: 1,
		Drain: 600 * time.Millisecond, Enqueue: 500 * time.Millisecond, Both: 1500 * time.Millisecond,
		PickupJobs: 100, Loaded: 1500 * time.Millisecond, LatenessJobs: 300, LatenessSpan: 5 * time.Second,
		Idle: 6 * time.Second, Herd: 3 * time.Second, MemoryJobs: 20_000,
		Cells: []Cell{{1, 10}, {1, 64}, {1, 256}, {2, 64}},
	}
}
