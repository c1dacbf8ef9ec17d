package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// Report is what a run has found: the raw data from which the table and the chart are made.
type Report struct {
	Began    time.Time         `json:"began"`
	Took     time.Duration     `json:"took_ns"`
	Plan     Plan              `json:"plan"`
	Engines  []string          `json:"engines"` // the first one is what the others are compared with
	Machine  Machine           `json:"machine"`
	Versions map[string]string `json:"versions"`
	Stores   map[string]bool   `json:"stores"` // servers by name and version
	Samples  []Sample          `json:"samples"`
}

// Sample is one measurement of one engine in one round.
type Sample struct {
	Measurement string `json:"measurement"`
	Engine      string `json:"engine"`
	Round       int    `json:"round"`
	Values      Values `json:"values"`
}

// Machine is where it ran.
type Machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory string `json:"memory"`
	System string `json:"system"`

	// Load is the load average over a minute before the run: what else went on.
	Load string `json:"load"`
}

func newReport(ctx context.Context, plan Plan, engines []string) *Report {
	return &Report{
		Began: time.Now().UTC().Truncate(time.Second), Plan: plan, Engines: engines,
		Machine: thisMachine(), Versions: versions(ctx), Stores: make(map[string]bool),
	}
}

func (r *Report) add(s Sample) { r.Samples = append(r.Samples, s) }

// value is one value of one round.
func (r *Report) value(measurement, name, engine string, round int) (float64, bool) {
	for _, s := range r.Samples {
		if s.Measurement == measurement && s.Engine == engine && s.Round == round {
			v, ok := s.Values[name]
			return v, ok
		}
	}
	return 0, false
}

// Save writes the raw data.
func (r *Report) Save(file string) error {
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644) //nolint:gosec // for everybody to read
}

// LoadReport reads what Save wrote.
func LoadReport(file string) (*Report, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := new(Report)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}

func thisMachine() Machine {
	m := Machine{Cores: runtime.NumCPU(), System: runtime.GOOS + "/" + runtime.GOARCH, CPU: "unknown", Memory: "unknown", Load: "unknown"}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.CPU = field(string(text), "model name")
	}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kb int64
		if _, err := fmt.Sscan(field(string(text), "MemTotal"), &kb); err == nil {
			m.Memory = fmt.Sprintf("%d GiB", (kb+1<<19)>>20)
		}
	}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load, _, _ = strings.Cut(string(text), " ")
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.System += ", kernel " + strings.TrimSpace(string(text))
	}
	return m
}

// field is the value of the first "name : value" line.
func field(text, name string) string {
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// versions of what is compared and of what it stands on.
func versions(ctx context.Context) map[string]string {
	v := map[string]string{"go": runtime.Version(), "bellhop": commit(ctx)}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	for name, path := range map[string]string{
		"asynq": "github.com/hibiken/asynq", "go-redis": "github.com/redis/go-redis/v9", "river": "github.com/riverqueue/river",
	} {
		for _, dep := range info.Deps {
			if dep.Path == path {
				v[name] = dep.Version
			}
		}
	}
	return v
}

// commit is what was measured; it is of no use to a run outside of a checkout, which goes on without.
func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--tags").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
