package faults

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// fault is one row of the catalogue.
type fault struct {
	name  string
	title string
	goal  string
}

var catalogue = []fault{
	{"F1", "worker kill -9 with running jobs", "<= 2 s"},
	{"F2", "worker frozen by SIGSTOP, woken later", "<= 10 s; the zombie's writes accepted: 0"},
	{"F3", "kill -9 of jobs with no retry left", "0 archived, 0 retries spent"},
	{"F4", "a job that kills its process, 9 beside it", "<= 3 crashes, quarantined with the reason; innocents' retries 0, none of them quarantined"},
	{"F5", "Redis (AOF) away for 6 s, 20 jobs finish", "20"},
	{"F6", "10% of replies cut", "0 and 0"},
	{"F7", "Redis kill -9, AOF always and everysec", "start-up warns without AOF; 0 lost with it"},
	{"F8", "Sentinel: master killed", "0 lost; duplicates <= jobs in flight"},
	{"F9", "Sentinel: split, client with the old master", "durable mode (WAIT 1): 0 lost; back <= 5 s after healing"},
	{"F10", "Redis full (noeviction)", "drains; <= 5 calls/s when it can't; leases kept"},
	{"F11", "Redis that evicts", "refuses to start (a flag overrides), alert"},
	{"F12", "1,000 ids in pending without a body", "<= 1 ms each, 0 keys leaked, counted"},
	{"F13", "undecodable message among expired jobs", "quarantined <= 5 s; the others recover"},
	{"F14", "worker clocks off by 60 s and 1 h, stock ones by 20 s", "0 steals (stock workers in the fleet: within 25 s): times come from Redis TIME"},
	{"F15", "SCRIPT FLUSH every 100 ms under load", "0 errors"},
	{"F17", "handler that ignores its context", "<= concurrency; the stuck one is shown"},
	{"F20", "50 running jobs of 1 MiB", "<= 0.1 MB/s"},
	{"F21", "20,000 archived, 9,000 of them old", "0 lost, 0 broken"},
	{"F22", "SIGTERM, idle and under load", "idle <= 1 s; loaded: finished or handed back within the grace"},
	{"F23", "kill -9 inside batches of done and dequeue", "duplicates <= batch; retries of the unstarted: 0"},
	{"F24", "nemesis over all of it", "0 invariant failures"},
}

// figure is what a scenario measured.
type figure struct {
	text string
	ok   bool // within what the test holds us to: the goal, or what is left of it where Redis does not allow it

	missed string // why the figure is not at the catalogue's goal, though it is within the test's bound
}

// missing tells that the figure misses the goal, and why it can't be helped. The goal stays what it is.
func (f figure) missing(why string) figure {
	f.missed = why
	return f
}

func (f figure) verdict() string {
	switch {
	case !f.ok:
		return "FALLS SHORT"
	case f.missed != "":
		return "missed: " + f.missed
	}
	return "ok"
}

func measured(ok bool, format string, args ...any) figure {
	return figure{text: fmt.Sprintf(format, args...), ok: ok}
}

// scenario plays a fault in a rig and asserts what must hold whoever runs the jobs.
type scenario func(r *rig) figure

// check plays a scenario against bellhop and holds its figure against the goal.
func check(t *testing.T, name string, play scenario, opts ...rigOption) {
	t.Helper()
	if testing.Short() {
		t.Skip("faults take seconds each: make faults")
	}
	got := play(newRig(t, bellhop, opts...))
	line := table.add(name, got)
	t.Log(line)
	if !got.ok {
		t.Errorf("%s misses its goal: %s", name, got.text)
	}
}

// stockFile holds stock asynq's figures by fault.
const stockFile = "stock.json"

func stockFigures() (map[string]string, error) {
	figures := make(map[string]string)
	data, err := os.ReadFile(stockFile)
	if err != nil {
		return nil, err
	}
	return figures, json.Unmarshal(data, &figures)
}

// results gathers the figures of a run.
type results struct {
	mu      sync.Mutex
	figures map[string]figure
}

var table = &results{figures: make(map[string]figure)}

func (r *results) add(name string, got figure) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.figures[name] = got
	at := slices.IndexFunc(catalogue, func(f fault) bool { return f.name == name })
	return catalogue[at].line(got)
}

func (f fault) line(got figure) string {
	return fmt.Sprintf("%-4s %-44s stock %-44s bellhop %-44s goal %-46s %s", f.name, f.title, f.stock(), got.text, f.goal, got.verdict())
}

// stock is its recorded figure.
func (f fault) stock() string {
	if figures, err := stockFigures(); err == nil && figures[f.name] != "" {
		return figures[f.name]
	}
	return "not recorded"
}

// print writes the lines in the catalogue's order.
func (r *results) print() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range catalogue {
		if got, ok := r.figures[f.name]; ok {
			fmt.Println(f.line(got))
		}
	}
}

// The table of a document stands between these lines.
const (
	tableBegins = "<!-- faults: begin -->\n"
	tableEnds   = "<!-- faults: end -->\n"
)

// write replaces the table in a document by the figures of this run, which must be a run of the whole catalogue.
func (r *results) write(file string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	doc, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, begins := strings.Cut(string(doc), tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !begins || !ends {
		return fmt.Errorf("%s has no place for the table", file)
	}
	var b strings.Builder
	b.WriteString("| | fault | stock asynq | bellhop | goal | |\n|---|---|---|---|---|---|\n")
	for _, f := range catalogue {
		got, ok := r.figures[f.name]
		if !ok {
			return fmt.Errorf("%s was not run: the table stays as it is", f.name)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", f.name, f.title, f.stock(), got.text, f.goal, got.verdict())
	}
	return os.WriteFile(file, []byte(before+tableBegins+b.String()+tableEnds+after), 0o644)
}
