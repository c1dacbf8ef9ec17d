package main

import (
	"bufio"
	"context"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// README.md's deliveries, pasted: signed as each provider signs, through the gateway, the triggers and the worker, to one run of each
// workflow. Pasted again, they are the same events, and run nothing; but for the calendar's, which have no id of their own.
func TestEachDeliveryRunsItsWorkflowOnce(t *testing.T) {
	s := start(t)
	ran := map[string]int{
		"triage-email <7@mail>": 1, "answer-mention Ev1": 1, "confirm-payment evt_1": 1, "webhook accounting evt_1": 1, "webhook crm evt_1": 1,
		"replan-day": 1,
	}
	s.refuse() // and runs nothing: see what has run below
	first := s.paste()
	if n := strings.Count(first, `"duplicate":true`); n != 1 { // Stripe's second one
		t.Errorf("%d deliveries were duplicates, want 1:\n%s", n, first)
	}
	s.want(ran)

	again := s.paste()
	if n := strings.Count(again, `"duplicate":true`); n != 3 { // the email and both of Stripe's; Slack is told nothing
		t.Errorf("%d of the repeated deliveries were duplicates, want 3:\n%s", n, again)
	}
	ran["replan-day"] = 2
	s.want(ran)
}

// refuse sends what nobody has signed.
func (s *sample) refuse() {
	s.t.Helper()
	for _, address := range []string{
		s.gateway + "/hooks/email", s.gateway + "/hooks/calendar", s.gateway + "/hooks/slack", s.gateway + "/hooks/stripe",
		s.agents.URL + "/webhooks/accounting", s.agents.URL + "/webhooks/crm",
	} {
		req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, address, strings.NewReader(`{"id": "x", "message_id": "x", "type": "x"}`))
		if err != nil {
			s.t.Fatal(err)
		}
		req.Header.Set("X-Goog-Channel-Token", "guessed")
		req.Header.Set("X-Mail-Timestamp", strconv.FormatInt(time.Now().Unix(), 10))
		req.Header.Set("X-Mail-Signature", "sha256="+strings.Repeat("0", 64))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			s.t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized {
			s.t.Errorf("%s: what is not signed has %s, want 401", address, resp.Status)
		}
	}
}

// sample is all of it, running.
type sample struct {
	t       *testing.T
	dir     string
	gateway string // http://...
	service *Service
	agents  *httptest.Server
}

// start runs the agent service, and worker, gateway and Redis as README.md says, in a copy of this directory.
func start(t *testing.T) *sample {
	t.Helper()
	s := &sample{t: t, dir: t.TempDir()}
	for _, name := range []string{"README.md", "secrets.sh", "config/bellhop.yaml", "config/triggers.yaml"} {
		copyFile(t, name, filepath.Join(s.dir, name))
	}
	s.bash("bash secrets.sh")
	s.service = NewService(filepath.Join(s.dir, "secrets"))
	s.agents = httptest.NewServer(s.service.Handler())
	t.Cleanup(s.agents.Close)
	for _, name := range []string{"README.md", "config/bellhop.yaml", "config/triggers.yaml"} {
		s.replace(name, "127.0.0.1:9000", strings.TrimPrefix(s.agents.URL, "http://"))
	}

	binary := filepath.Join(s.dir, "worker")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "github.com/bellhop-dev/bellhop/cmd/worker")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the worker: %v\n%s", err, out)
	}
	worker := exec.CommandContext(context.WithoutCancel(t.Context()), binary, "--dev", "--config", "config/bellhop.yaml")
	worker.Dir = s.dir
	out, in := io.Pipe()
	worker.Stdout, worker.Stderr = in, in
	if err := worker.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = worker.Process.Signal(syscall.SIGINT)
		if err := worker.Wait(); err != nil {
			t.Errorf("the worker has not ended well: %v", err)
		}
		_ = in.Close()
	})
	lines := make(chan string, 10_000)
	go func() {
		for scan := bufio.NewScanner(out); scan.Scan(); {
			lines <- scan.Text()
		}
		close(lines)
	}()
	s.gateway = waitFor(t, lines, `Gateway (http://\S+)`)
	waitFor(t, lines, `(worker started)`)
	s.replace("README.md", "http://127.0.0.1:8080", s.gateway)
	return s
}

// paste runs what README.md shows.
func (s *sample) paste() string {
	s.t.Helper()
	page, err := os.ReadFile(filepath.Join(s.dir, "README.md"))
	if err != nil {
		s.t.Fatal(err)
	}
	script := "set -euo pipefail\n"
	for _, block := range regexp.MustCompile("(?s)```bash\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		script += block[1]
	}
	return s.bash(script)
}

func (s *sample) bash(script string) string {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), "bash", "-c", script)
	cmd.Dir = s.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%v\n%s\n%s", err, script, out)
	}
	return string(out)
}

// want waits until so many workflows have run for each event, and for no other; the calendar's events are counted as one.
func (s *sample) want(want map[string]int) {
	s.t.Helper()
	total := 0
	for _, n := range want {
		total += n
	}
	end := time.After(60 * time.Second)
	for tick := time.NewTicker(20 * time.Millisecond); len(s.service.Runs()) < total; {
		select {
		case <-tick.C:
		case <-end:
			s.t.Fatalf("after a minute %d workflows have run, want %d: %+v", len(s.service.Runs()), total, s.service.Runs())
		}
	}
	got := make(map[string]int)
	for _, run := range s.service.Runs() {
		name := run.Workflow + " " + run.Event
		if run.Workflow == "replan-day" {
			name = run.Workflow
		}
		got[name]++
		if run.Calls != 1 {
			s.t.Errorf("%s was called %d times", name, run.Calls)
		}
	}
	if !maps.Equal(got, want) {
		s.t.Errorf("ran %v\nwant %v", got, want)
	}
}

func waitFor(t *testing.T, lines <-chan string, pattern string) string {
	t.Helper()
	end := time.After(60 * time.Second)
	var seen []string
	for {
		select {
		case line, more := <-lines:
			if m := regexp.MustCompile(pattern).FindStringSubmatch(line); m != nil {
				return m[1]
			}
			if seen = append(seen, line); !more {
				t.Fatalf("the worker has ended before it wrote %q:\n%s", pattern, strings.Join(seen, "\n"))
			}
		case <-end:
			t.Fatalf("the worker did not write %q within a minute, but:\n%s", pattern, strings.Join(seen, "\n"))
		}
	}
}

func (s *sample) replace(name, old, with string) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	text, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		s.t.Fatalf("%s has no %s", name, old)
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), old, with)), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, text, 0o600); err != nil {
		t.Fatal(err)
	}
}
