package main

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// table is the whole result: for each row the medians with the lowest and highest of the rounds, and how many times better the
// engines are than the first one.
func (r *Report) table() [][]string {
	others := r.Engines[1:]
	head := []string{"", "unit"}
	head = append(head, r.Engines...)
	for _, engine := range others {
		head = append(head, engine+" better by")
	}
	lines := [][]string{append(head, "goal", "")}
	subject := r.subject()
	for _, w := range r.rows() {
		line := []string{w.label, w.unit}
		known := false
		for _, engine := range r.Engines {
			s := w.of(r, engine)
			if w.only == scriptsEngine && engine == subject {
				s = w.of(r, scriptsEngine)
			}
			known = known || s.n > 0
			line = append(line, s.String())
		}
		for _, engine := range others {
			line = append(line, timesOf(w.ratio(r, engine)))
		}
		if known {
			lines = append(lines, append(line, w.goal.text, w.verdict(r, subject)))
		}
	}
	return lines
}

func timesOf(s spread) string {
	switch s.n {
	case 0:
		return ""
	case 1:
		return digits(s.median) + "x"
	}
	return fmt.Sprintf("%sx (%s..%s)", digits(s.median), digits(s.low), digits(s.high))
}

// subject is whose goals are checked: the last bellhop of the engines.
func (r *Report) subject() string {
	for _, engine := range slices.Backward(r.Engines) {
		if isBellhop(engine) {
			return engine
		}
	}
	return ""
}

// Text is the table for a terminal.
func (r *Report) Text() string {
	lines := r.table()
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\nMedians of %s (lowest..highest), %s\n\n", rounds(r.Plan.Rounds), r.where())
	for _, line := range lines {
		var out strings.Builder
		for i, cell := range line {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 {
				out.WriteString(cell + pad)
			} else {
				out.WriteString("  " + cell + pad)
			}
		}
		b.WriteString(strings.TrimRight(out.String(), " ") + "\n")
	}
	met, all := r.goals()
	fmt.Fprintf(&b, "\n%d of %d goals met, in %v\n", met, all, r.Took.Round(1e9))
	return b.String()
}

func (r *Report) goals() (met, all int) {
	for _, w := range r.rows() {
		switch w.verdict(r, r.subject()) {
		case "met":
			met++
			all++
		case "not met":
			all++
		}
	}
	return met, all
}

// where says on what the figures were found.
func (r *Report) where() string {
	return fmt.Sprintf("%s with %s, %s", r.Machine.CPU, cores(r.Machine.Cores), r.Machine.System)
}

// Markdown is the table for a page.
func (r *Report) Markdown() string {
	var b strings.Builder
	for i, line := range r.table() {
		b.WriteString("| " + strings.Join(line, " | ") + " |\n")
		if i == 0 {
			b.WriteString("|---|---|" + strings.Repeat("---:|", len(line)-4) + "---|---|\n")
		}
	}
	return b.String()
}
