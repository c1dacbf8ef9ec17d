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
	{"F2", "worker frozen by SIGSTOP, woken later", "<= 10 s, zombie's writes 0"},
	{"F3", "kill -9 of jobs with no retry left", "archived 0, retries spent 0"},
	{"F4", "a job that kills its process, 9 beside it", "<= 3 crashes, quarantined; innocents unharmed"},
	{"F5", "Redis (AOF) away for 6 s, 20 jobs finish", "20 runs of 20"},
	{"F6", "10% of replies cut", "false errors 0, stranded 0"},
	{"F7", "Redis kill -9, AOF always and everysec", "lost 0; everysec: Redis' own 2 s"},
	{"F8", "Sentinel: master killed", "lost 0, duplicates <= in flight"},
	{"F9", "Sentinel: split, client with the old master", "durable mode: lost 0; back <= 15 s (Sentinel's 8 s)"},
	{"F10", "Redis full (noeviction)", "drains; leases kept; <= 5 calls/s when it can't"},
	{"F11", "Redis that evicts", "refuses to start"},
	{"F12", "1,000 ids in pending without a body", "<= 1 ms each, keys leaked 0"},
	{"F13", "undecodable message among expired jobs", "set aside <= 5 s, the others recover"},
	{"F14", "worker clocks off by 60 s and 1 h", "steals 0"},
	{"F15", "SCRIPT FLUSH every 100 ms under load", "errors 0"},
	{"F17", "handler that ignores its context", "handlers at once <= concurrency, shown"},
	{"F20", "50 running jobs of 1 MiB", "<= 0.1 MB/s"},
	{"F21", "20,000 archived, 9,000 of them old", "lost 0, broken 0"},
	{"F22", "SIGTERM, idle and under load", "idle <= 1 s; within the grace, lost 0"},
	{"F23", "kill -9 inside batches of done and dequeue", "duplicates <= batch, retries spent 0"},
	{"F24", "nemesis over all of it", "invariant failures 0"},
}

// figure is what a scenario measured.
type figure struct {
	text string
	ok   bool // at the goal
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

// results gathers the lines of a run.
type results struct {
	mu    sync.Mutex
	lines map[string]string
}

var table = &results{lines: make(map[string]string)}

func (r *results) add(name string, got figure) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := slices.IndexFunc(catalogue, func(f fault) bool { return f.name == name })
	row := catalogue[at]
	stock := "not recorded"
	if figures, err := stockFigures(); err == nil && figures[name] != "" {
		stock = figures[name]
	}
	verdict := "ok"
	if !got.ok {
		verdict = "FALLS SHORT"
	}
	line := fmt.Sprintf("%-4s %-44s stock %-44s bellhop %-44s goal %-46s %s", row.name, row.title, stock, got.text, row.goal, verdict)
	r.lines[name] = line
	return line
}

// print writes the lines in the catalogue's order.
func (r *results) print() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lines) == 0 {
		return
	}
	var lines []string
	for _, f := range catalogue {
		if line, ok := r.lines[f.name]; ok {
			lines = append(lines, line)
		}
	}
	fmt.Println(strings.Join(lines, "\n"))
}
