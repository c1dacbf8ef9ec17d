package main

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   []float64
		want float64
	}{
		{[]float64{3}, 3},
		{[]float64{9, 1, 2}, 2},
		{[]float64{4, 1, 3, 2}, 2.5},
	} {
		if got := median(c.in); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.in, got, c.want)
		}
	}
}

func TestQuantilesByNearestRank(t *testing.T) {
	t.Parallel()
	took := make([]time.Duration, 200)
	for i := range took {
		took[len(took)-1-i] = time.Duration(i+1) * time.Millisecond // the longest first
	}
	got := quantiles(took)
	for name, want := range (Values{"min_ms": 1, "p50_ms": 100, "p99_ms": 198, "max_ms": 200, "jobs": 200}) {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
}

func TestPayloadHas100Bytes(t *testing.T) {
	t.Parallel()
	for _, n := range []int64{0, 9, 10, 123_456, 1 << 62} {
		if got := len(newPayload(n).encode()); got != payloadBytes {
			t.Errorf("payload of job %d has %d bytes", n, got)
		}
	}
}

func TestDigits(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{0.123: "0.12", 12.34: "12.3", 123.4: "123", 1234.5: "1,235", 1_234_567: "1,234,567", -1234: "-1,234"} {
		if got := digits(v); got != want {
			t.Errorf("digits(%v) = %q, want %q", v, got, want)
		}
	}
}

// report is of two rounds, the second on a machine of half the speed.
func report() *Report {
	r := &Report{Engines: []string{"asynq", "bellhop"}, Plan: Plan{Rounds: 2, Cells: []Cell{{1, 10}, {1, 256}}}, Versions: map[string]string{}}
	add := func(round int, measurement, engine string, v Values) {
		r.add(Sample{Measurement: measurement, Engine: engine, Round: round, Values: v})
	}
	for round, speed := range []float64{1, 0.5} {
		add(round, "drain 1x10", "asynq", Values{"per_second": 1000 * speed})
		add(round, "drain 1x10", "bellhop", Values{"per_second": 2500 * speed})
		add(round, "drain 1x256", "asynq", Values{"per_second": 1000 * speed})
		add(round, "drain 1x256", "bellhop", Values{"per_second": 9000 * speed})
		add(round, nameScripts, scriptsEngine, Values{"per_second": 10_000 * speed})
		add(round, namePickup, "asynq", Values{"p50_ms": 500, "p99_ms": 1000})
		add(round, namePickup, "bellhop", Values{"p50_ms": 0.5, "p99_ms": 5})
		add(round, nameMemory, "asynq", Values{"bytes_per_job": 1000})
		add(round, nameMemory, "bellhop", Values{"bytes_per_job": 1015})
		add(round, nameIdle, "asynq", Values{"commands_per_second": 10})
		add(round, nameIdle, "bellhop", Values{"commands_per_second": 11})
		add(round, nameLateness, "asynq", Values{"min_ms": -900})
		add(round, nameLateness, "bellhop", Values{"min_ms": -0.1})
	}
	return r
}

func TestGoalsAreHeldAgainstRatiosOfTheSameRound(t *testing.T) {
	t.Parallel()
	want := map[string]struct{ ratio, verdict string }{
		"drain, 1 process, concurrency 10":                      {"2.50x (2.50..2.50)", "not met"},
		"drain, 1 process, concurrency 256":                     {"9.00x (9.00..9.00)", "met"},
		"share of the bare scripts, 1 process, concurrency 256": {"", "met"},
		"pick-up by an idle worker, p50":                        {"1,000x (1,000..1,000)", "met"},
		"pick-up by an idle worker, p99":                        {"200x (200..200)", "not met"},
		"memory of a pending job":                               {"0.99x (0.99..0.99)", "met"},
		"idle worker, 3 queues, 1 paused: Redis":                {"0.91x (0.91..0.91)", "not met"},
		"the earliest scheduled job":                            {"", "not met"},
		"drained while 64 goroutines enqueue":                   {"", ""},
		"bare scripts, 200 jobs a call":                         {"", ""},
		"idle worker, 3 queues, 1 paused: Redis' CPU":           {"", ""},
		"pick-up at 30% of asynq's drain, p50":                  {"", ""},
	}
	r := report()
	for _, w := range r.rows() {
		expected, ok := want[w.label]
		if !ok {
			continue
		}
		delete(want, w.label)
		if got := timesOf(w.ratio(r, "bellhop")); got != expected.ratio {
			t.Errorf("%s: ratio %q, want %q", w.label, got, expected.ratio)
		}
		if got := w.verdict(r, "bellhop"); got != expected.verdict {
			t.Errorf("%s: verdict %q, want %q", w.label, got, expected.verdict)
		}
	}
	for label := range want {
		t.Errorf("the table has no row %q", label)
	}
	if met, all := r.goals(); met != 4 || all != 8 {
		t.Errorf("%d of %d goals met, want 4 of 8", met, all)
	}
}

func TestTableLeavesOutWhatWasNotMeasured(t *testing.T) {
	t.Parallel()
	text := report().Text()
	if !strings.Contains(text, "2,500 (1,250..2,500)") && !strings.Contains(text, "1,875 (1,250..2,500)") {
		t.Errorf("the table lacks bellhop's spread:\n%s", text)
	}
	if strings.Contains(text, "enqueue many") {
		t.Errorf("the table has a row without a value:\n%s", text)
	}
}

func TestChartIsXML(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]*Report{"full": report(), "empty": {Engines: []string{"asynq", "a<b"}}} {
		decoder := xml.NewDecoder(strings.NewReader(r.Chart()))
		for {
			_, err := decoder.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
}

func TestPublishKeepsWhatPeopleWrote(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	page, chart := filepath.Join(dir, "page.md"), filepath.Join(dir, "chart.svg")
	if err := os.WriteFile(page, []byte("above\n"+markBegin+"\nold\n"+markEnd+"\nbelow\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := report()
	for range 2 { // the second time over its own output
		if err := r.Publish(page, chart); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	text := string(got)
	if !strings.HasPrefix(text, "above\n"+markBegin+"\n") || !strings.HasSuffix(text, markEnd+"\nbelow\n") {
		t.Errorf("what stands around the data has changed:\n%s", text)
	}
	if strings.Contains(text, "old") || strings.Count(text, "| drain, 1 process, concurrency 10 |") != 1 {
		t.Errorf("the data's part is not just the new one:\n%s", text)
	}
	if _, err := replaceBetween([]byte("no marks"), ""); err == nil {
		t.Error("a page without marks is overwritten")
	}
}

func TestSaveAndLoad(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "new", "r.json")
	r := report()
	if err := r.Save(file); err != nil {
		t.Fatal(err)
	}
	again, err := LoadReport(file)
	if err != nil {
		t.Fatal(err)
	}
	if r.Text() != again.Text() {
		t.Error("the table of what was saved differs")
	}
}

func TestUnknownEngineIsRefused(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-engines", "asynq,sidekiq"}, {"-engines", "bellhop:fast"}, {"-only", "("}, {"stray"}} {
		if _, err := parseOptions(args, io.Discard); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}

// TestMain lets the test's program be the child of its own run, as bench is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == childFlag {
		os.Exit(childMain(context.Background()))
	}
	os.Exit(m.Run())
}

// TestRun measures a little of everything that takes no long wait, on a real server.
func TestRun(t *testing.T) {
	t.Parallel()
	plan := Plan{
		Rounds: 2, SlowRounds: 1, Drain: 20 * time.Millisecond, Cells: []Cell{{2, 4}},
		Enqueue: 50 * time.Millisecond, Both: 1500 * time.Millisecond, PickupJobs: 3, Loaded: 50 * time.Millisecond, MemoryJobs: 500,
	}
	r, err := newRunner(t.Context(), plan, []string{"asynq", "bellhop"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	got, err := r.run(t.Context(), regexp.MustCompile("bare|drain|enqueue|pick-up|memory"))
	if err != nil {
		t.Fatal(err)
	}
	if want := 2 + 2*2*6 + 2; len(got.Samples) != want {
		t.Errorf("%d samples, want %d", len(got.Samples), want)
	}
	for _, s := range got.Samples {
		for name, v := range s.Values {
			if v <= 0 {
				t.Errorf("%s of %s, %s is %v", s.Measurement, s.Engine, name, v)
			}
		}
	}
}
