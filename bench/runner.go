package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// runner measures all engines in turns: for each round, for each measurement, one engine after the other.
type runner struct {
	plan     Plan
	engines  []string
	progress io.Writer
	postgres *postgres
	rates    map[string]float64 // the fastest drain so far, jobs/s
	load     float64            // jobs/s at which loaded pick-up is timed
	report   *Report
	profiles string // directory for CPU profiles, "" for none
}

func newRunner(ctx context.Context, plan Plan, engines []string, progress io.Writer) (*runner, error) {
	r := &runner{plan: plan, engines: engines, progress: progress, rates: make(map[string]float64)}
	if slices.Contains(engines, "river") {
		var err error
		if r.postgres, err = startPostgres(ctx); err != nil {
			return nil, err
		}
	}
	r.report = newReport(ctx, plan, engines)
	return r, nil
}

func (r *runner) close() {
	if r.postgres != nil {
		r.postgres.close()
	}
}

// limit is far above what one measurement takes: a hanging engine must not hang the run.
const limit = 2 * time.Minute

func (r *runner) run(ctx context.Context, only *regexp.Regexp) (*Report, error) {
	begin := time.Now()
	if err := r.calibrate(ctx); err != nil {
		return nil, err
	}
	for round := range r.plan.Rounds {
		for _, m := range r.measurements() {
			if round >= m.rounds || !only.MatchString(m.name) {
				continue
			}
			for _, engine := range r.turn(round, m) {
				if err := r.measure(ctx, round, m, engine); err != nil {
					return nil, err
				}
			}
		}
	}
	r.report.Took = time.Since(begin)
	return r.report, nil
}

// turn is the engines' order, another one in each round: nobody always comes after the same neighbour.
func (r *runner) turn(round int, m measurement) []string {
	var engines []string
	for _, name := range r.engines {
		if onRedis(name) || !m.redisOnly {
			engines = append(engines, name)
		}
	}
	if m.alone != "" {
		return []string{m.alone}
	}
	shift := round % len(engines)
	return append(slices.Clone(engines[shift:]), engines[:shift]...)
}

func (r *runner) measure(ctx context.Context, round int, m measurement, engine string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%s took more than %v", m.name, limit))
	defer cancel()
	s, err := r.store(ctx, engine)
	if err != nil {
		return err
	}
	defer s.close()
	r.report.Stores[s.kind] = true
	values, err := m.run(ctx, s, engine)
	if err != nil {
		return fmt.Errorf("%s, %s: %w", m.name, engine, err)
	}
	r.report.add(Sample{Measurement: m.name, Engine: engine, Round: round, Values: values})
	fmt.Fprintf(r.progress, "round %d  %-22s %-14s %s\n", round+1, m.name, engine, values)
	return nil
}

func (r *runner) store(ctx context.Context, engine string) (*store, error) {
	if onRedis(engine) {
		return startRedis(ctx)
	}
	return r.postgres.database(ctx)
}

// calibrate finds how large a backlog lasts for the planned time, and what the load at 30% is.
func (r *runner) calibrate(ctx context.Context) error {
	r.rates[scriptsEngine] = 60_000 // only a backlog's size hangs on it
	for _, engine := range r.engines {
		for _, jobs := range []int{3000, 20_000} {
			rate, err := r.calibrateWith(ctx, engine, jobs)
			if err != nil {
				return fmt.Errorf("first drain of %s: %w", engine, err)
			}
			r.rates[engine] = rate
			if rate < float64(3*jobs) {
				break // it lasted long enough to be believed
			}
		}
		fmt.Fprintf(r.progress, "first    %-22s %-14s per_second=%s\n", "drain", engine, digits(r.rates[engine]))
	}
	r.load = loadedShare * r.rates[r.engines[0]]
	return nil
}

func (r *runner) calibrateWith(ctx context.Context, engine string, jobs int) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	s, err := r.store(ctx, engine)
	if err != nil {
		return 0, err
	}
	defer s.close()
	v, err := drain(ctx, s, engine, Cell{1, 64}, jobs, "")
	return v["per_second"], err
}

// drain also remembers how fast it was, for the next backlog: a first, short drain may have been disturbed.
func (r *runner) drain(ctx context.Context, s *store, engine string, cell Cell) (Values, error) {
	v, err := drain(ctx, s, engine, cell, r.backlog(engine), r.profileOf(engine, cell))
	r.rates[engine] = max(r.rates[engine], v["per_second"])
	return v, err
}

// profileOf is where the CPU profile of a worker process goes, "" for nowhere. Several processes are not profiled.
func (r *runner) profileOf(engine string, cell Cell) string {
	if r.profiles == "" || cell.Processes > 1 {
		return ""
	}
	return filepath.Join(r.profiles, strings.ReplaceAll(fmt.Sprintf("%s %s.pprof", engine, cell), " ", "-"))
}

// backlog is a number of jobs that lasts about as long as a drain shall.
func (r *runner) backlog(engine string) int {
	jobs := int(r.rates[engine] * r.plan.Drain.Seconds())
	return min(max(jobs, 2000), 200_000) / 100 * 100
}
