package main

import (
	"fmt"
	"math"
	"slices"
)

// row is a line of the table.
type row struct {
	label string
	unit  string
	value func(r *Report, engine string, round int) (float64, bool)

	// more tells that more is better. Where there is no better, as for shares, noRatio leaves the comparison out.
	more    bool
	noRatio bool
	only    string // the one engine that has this row, "" is all
	goal    goal
}

// goal is what bellhop shall reach. The zero goal is none.
type goal struct {
	text string
	met  func(value, ratio float64) bool // ratio is how many times better than the first engine
}

func atLeastTimes(x float64) goal {
	return goal{fmt.Sprintf("≥ %gx", x), func(_, ratio float64) bool { return ratio >= x }}
}

func atMost(limit float64) goal {
	return goal{fmt.Sprintf("≤ %g", limit), func(value, _ float64) bool { return value <= limit }}
}

func atLeast(limit float64) goal {
	return goal{fmt.Sprintf("≥ %g", limit), func(value, _ float64) bool { return value >= limit }}
}

// notAbove takes a share that it may be worse than the first engine.
func notAbove(share float64) goal {
	text := "≤ asynq's"
	if share > 0 {
		text += fmt.Sprintf(" + %g%%", share*100)
	}
	return goal{text, func(_, ratio float64) bool { return ratio >= 1/(1+share) }}
}

func of(measurement, value string) func(*Report, string, int) (float64, bool) {
	return func(r *Report, engine string, round int) (float64, bool) {
		return r.value(measurement, value, engine, round)
	}
}

// shareOfScripts is how much of what the bare scripts reach is left with the engine around them, in percent.
func shareOfScripts(measurement string) func(*Report, string, int) (float64, bool) {
	return func(r *Report, engine string, round int) (float64, bool) {
		reached, ok := r.value(measurement, "per_second", engine, round)
		limit, ok2 := r.value(nameScripts, "per_second", scriptsEngine, round)
		return 100 * reached / limit, ok && ok2 && isBellhop(engine)
	}
}

// rows are the table, from top to bottom, with the goals.
func (r *Report) rows() []row {
	var rows []row
	for _, cell := range r.Plan.Cells {
		one := row{label: cell.label(), unit: "jobs/s", value: of(cell.String(), "per_second"), more: true}
		switch cell {
		case Cell{1, 10}:
			one.goal = atLeastTimes(3)
		case Cell{1, 256}:
			one.goal = atLeastTimes(8)
		}
		rows = append(rows, one)
	}
	full := Cell{1, 256}
	return append(
		rows,
		row{label: "bare scripts, 200 jobs a call", unit: "jobs/s", value: of(nameScripts, "per_second"), only: scriptsEngine, noRatio: true},
		row{label: "share of the bare scripts, 1 process, concurrency 256", unit: "%", value: shareOfScripts(full.String()), more: true, noRatio: true, goal: atLeast(60)},
		row{label: "CPU of Redis for a job, 1 process, concurrency 256", unit: "µs", value: of(full.String(), "redis_cpu_us")},
		row{label: "CPU of the worker for a job, 1 process, concurrency 256", unit: "µs", value: of(full.String(), "worker_cpu_us")},
		row{label: "CPU of Redis for a job, bare scripts", unit: "µs", value: of(nameScripts, "redis_cpu_us"), only: scriptsEngine, noRatio: true},
		row{label: "enqueue one by one, 64 goroutines", unit: "jobs/s", value: of(nameSingle, "per_second"), more: true, goal: atLeastTimes(2)},
		row{label: "enqueue many", unit: "jobs/s", value: of(nameBulk, "per_second"), more: true, goal: atLeastTimes(3)},
		row{label: "drained while 64 goroutines enqueue", unit: "jobs/s", value: of(nameBoth, "per_second"), more: true, goal: atLeastTimes(4)},
		row{label: "pick-up by an idle worker, p50", unit: "ms", value: of(namePickup, "p50_ms"), goal: atMost(0.8)},
		row{label: "pick-up by an idle worker, p99", unit: "ms", value: of(namePickup, "p99_ms"), goal: atMost(3)},
		row{label: "pick-up at 30% of asynq's drain, p50", unit: "ms", value: of(nameLoaded, "p50_ms"), goal: atMost(0.7)},
		row{label: "pick-up at 30% of asynq's drain, p99", unit: "ms", value: of(nameLoaded, "p99_ms"), goal: atMost(5)},
		row{label: "scheduled job starts late by, p50", unit: "ms", value: of(nameLateness, "p50_ms"), goal: atMost(3)},
		row{label: "scheduled job starts late by, p99", unit: "ms", value: of(nameLateness, "p99_ms"), goal: atMost(15)},
		row{label: "the earliest scheduled job", unit: "ms", value: of(nameLateness, "min_ms"), noRatio: true, goal: atLeast(0)},
		row{label: "idle worker, 3 queues, 1 paused: Redis", unit: "commands/s", value: of(nameIdle, "commands_per_second"), goal: notAbove(0)},
		row{label: "idle worker, 3 queues, 1 paused: its CPU", unit: "ms/s", value: of(nameIdle, "worker_cpu_ms"), goal: notAbove(0)},
		row{label: "idle worker, 3 queues, 1 paused: Redis' CPU", unit: "ms/s", value: of(nameIdle, "redis_cpu_ms")},
		row{label: "50 idle workers, 1 queue: for each job", unit: "commands", value: of(nameHerd, "commands_per_job")},
		row{label: "50 idle workers, 1 queue: at rest", unit: "commands/s", value: of(nameHerd, "commands_per_second")},
		row{label: "memory of a pending job", unit: "bytes", value: of(nameMemory, "bytes_per_job"), goal: notAbove(0.02)},
	)
}

func (c Cell) label() string {
	processes := "1 process"
	if c.Processes > 1 {
		processes = fmt.Sprintf("%d processes", c.Processes)
	}
	return fmt.Sprintf("drain, %s, concurrency %d", processes, c.Concurrency)
}

// spread is what the rounds have found.
type spread struct {
	median, low, high float64
	n                 int
}

func spreadOf(v []float64) spread {
	if len(v) == 0 {
		return spread{median: math.NaN()}
	}
	return spread{median(v), slices.Min(v), slices.Max(v), len(v)}
}

func (s spread) String() string {
	switch {
	case s.n == 0:
		return ""
	case s.n == 1 || digits(s.low) == digits(s.high):
		return digits(s.median)
	}
	return fmt.Sprintf("%s (%s..%s)", digits(s.median), digits(s.low), digits(s.high))
}

// of is the row's spread over the rounds.
func (w row) of(r *Report, engine string) spread {
	var v []float64
	for round := range r.Plan.Rounds {
		if x, ok := w.value(r, engine, round); ok && (w.only == "" || w.only == engine) {
			v = append(v, x)
		}
	}
	return spreadOf(v)
}

// ratio is how many times better an engine is than the first one: of each round's two neighbours, not of the medians, so that what
// slows down a whole round drops out.
func (w row) ratio(r *Report, engine string) spread {
	if w.noRatio || engine == r.Engines[0] {
		return spreadOf(nil)
	}
	var v []float64
	for round := range r.Plan.Rounds {
		a, ok := w.value(r, r.Engines[0], round)
		b, ok2 := w.value(r, engine, round)
		switch {
		case !ok || !ok2:
		case w.more:
			v = append(v, b/a)
		default:
			v = append(v, a/b)
		}
	}
	return spreadOf(v)
}

// verdict is "met", "not met", or "" where there is no goal or no value.
func (w row) verdict(r *Report, engine string) string {
	value, ratio := w.of(r, engine), w.ratio(r, engine)
	if w.goal.met == nil || value.n == 0 || !w.noRatio && ratio.n == 0 {
		return ""
	}
	if w.goal.met(value.median, ratio.median) {
		return "met"
	}
	return "not met"
}
