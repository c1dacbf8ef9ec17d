package main

import (
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// What stands between these lines of the page is made from the data; the rest is written by hand.
const (
	markBegin = "<!-- bench: begin; make bench writes what follows -->"
	markEnd   = "<!-- bench: end -->"
)

// Publish draws the chart and writes the data's part of the page.
func (r *Report) Publish(page, chart string) error {
	if err := os.WriteFile(chart, []byte(r.Chart()), 0o644); err != nil { //nolint:gosec // for everybody to read
		return err
	}
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	text, err = replaceBetween(text, r.section(filepath.Base(chart)))
	if err != nil {
		return fmt.Errorf("%s: %w", page, err)
	}
	return os.WriteFile(page, text, 0o644) //nolint:gosec // for everybody to read
}

func replaceBetween(page []byte, section string) ([]byte, error) {
	before, rest, ok := strings.Cut(string(page), markBegin+"\n")
	_, after, ok2 := strings.Cut(rest, markEnd)
	if !ok || !ok2 {
		return nil, fmt.Errorf("the lines %q and %q must stand in it", markBegin, markEnd)
	}
	return []byte(before + markBegin + "\n" + section + markEnd + after), nil
}

func (r *Report) section(chart string) string {
	met, all := r.goals()
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s, %s, %s of memory; %s; Go %s, asynq %s, go-redis %s", r.Machine.CPU, cores(r.Machine.Cores), r.Machine.Memory, r.Machine.System,
		strings.TrimPrefix(r.Versions["go"], "go"), r.Versions["asynq"], r.Versions["go-redis"])
	if slices.Contains(r.Engines, "river") {
		fmt.Fprintf(&b, ", River %s", r.Versions["river"])
	}
	fmt.Fprintf(&b, ", %s; bellhop %s. %s, %s in %v, load average %s before it; loaded pick-up at %s jobs/s.\n",
		strings.Join(slices.Sorted(maps.Keys(r.Stores)), ", "), r.Versions["bellhop"],
		r.Began.Format("2 January 2006"), rounds(r.Plan.Rounds), r.Took.Round(1e9), r.Machine.Load, digits(r.load()))
	fmt.Fprintf(&b, "**%d of %d goals met.**\n\n![Throughput and waiting times of the engines](%s)\n\n%s\n", met, all, chart, r.Markdown())
	return b.String()
}

func cores(n int) string { return plural(n, "core") }

func rounds(n int) string { return plural(n, "round") }

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// load is the rate at which loaded pick-up was timed.
func (r *Report) load() float64 {
	for _, s := range r.Samples {
		if v, ok := s.Values["load_per_second"]; ok {
			return v
		}
	}
	return math.NaN()
}
