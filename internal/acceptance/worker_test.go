package acceptance_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/internal/redistest"
)

// slow stretches what is promised of a machine that has time, on one that tests at full load.
const slow = 5

// TestWorkerCommand goes through what ends by itself: what it answers, and its exit codes.
func TestWorkerCommand(t *testing.T) {
	t.Parallel()
	address := redisURL(t, redistest.New(t))
	dir := t.TempDir()
	for name, content := range map[string]string{
		"wrong.yaml": "worker: {concurency: 5, grace: soon}\nreddis: {}\n",
		"right.yaml": "worker: {concurrency: 5}\nredis: {password: hidden-word}\n",
		"rules.yaml": "triggers:\n  - name: a\n    on: a.**.b\n    when: event.dat == 1\n    run: log:wirte\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		args []string
		env  string
		code int
		says []string
		not  string
	}{
		"the version":       {args: []string{"--version"}, says: []string{"worker "}},
		"help":              {args: []string{"--help"}, says: []string{"--dev", "Exit codes"}},
		"the configuration": {args: []string{"--print-config", "--config", "right.yaml", "--grace", "3s"}, env: "BELLHOP_WORKER_QUEUES=a=2,b", says: []string{"concurrency: 5", "right.yaml:1", "grace: 3s", "--grace", "BELLHOP_WORKER_QUEUES"}, not: "hidden-word"},
		"unserved":          {args: []string{"--check", "--queues", "nobody"}, code: 1, says: []string{"no live worker serves: nobody"}},
		"unserved, JSON":    {args: []string{"--check", "--queues", "nobody", "--json"}, code: 1, says: []string{`"ok":false`, `"queues":["nobody"]`}},
		"an argument":       {args: []string{"run"}, code: 2, says: []string{`unknown argument "run"`}},
		"an unknown flag":   {args: []string{"--concurency", "5"}, code: 2, says: []string{"--concurrency"}},
		"a wrong file":      {args: []string{"--config", "wrong.yaml"}, code: 2, says: []string{"concurency", "concurrency", "grace", "reddis", "wrong.yaml:1", "wrong.yaml:2"}},
		"a missing file":    {args: []string{"--config", "missing.yaml"}, code: 2, says: []string{"missing.yaml"}},
		"a wrong variable":  {env: "BELLHOP_WORKER_CONCURENCY=5", code: 2, says: []string{"BELLHOP_WORKER_CONCURRENCY"}},
		"wrong rules":       {args: []string{"--triggers", "rules.yaml"}, code: 2, says: []string{"rules.yaml:3", "rules.yaml:4", "rules.yaml:5", "log:write"}},
		"--dev and a Redis": {args: []string{"--dev"}, code: 2, says: []string{"--dev brings its own Redis"}},
		"a number":          {args: []string{"--concurrency", "many"}, code: 2, says: []string{"many"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := prepare(t, dir, filepath.Join(programs(t), "worker"), c.args...)
			w.cmd.Env = append(w.cmd.Env, "BELLHOP_REDIS_URL="+address)
			if c.env != "" {
				w.cmd.Env = append(w.cmd.Env, c.env)
			}
			r := w.run().want(t, c.code, c.says...)
			if c.not != "" && strings.Contains(r.stdout+r.stderr, c.not) {
				t.Errorf("the output tells %q", c.not)
			}
		})
	}
}

// TestPrintConfigJSON is what scripts read.
func TestPrintConfigJSON(t *testing.T) {
	t.Parallel()
	r := prepare(t, t.TempDir(), filepath.Join(programs(t), "worker"), "--print-config", "--json", "--concurrency", "7").run().want(t, 0)
	var all map[string]struct {
		Value any    `json:"value"`
		From  string `json:"from"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &all); err != nil {
		t.Fatalf("%q: %v", r.stdout, err)
	}
	if c := all["worker.concurrency"]; c.Value != 7.0 || c.From != "--concurrency" {
		t.Errorf("worker.concurrency is %v", c)
	}
	if c := all["worker.grace"]; c.Value != "25s" || c.From != "default" {
		t.Errorf("worker.grace is %v", c)
	}
}

// TestCheckIsQuick: a probe answers within a second, whatever is the matter.
func TestCheckIsQuick(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	dead, err := net.Listen("tcp", "127.0.0.1:0") // it accepts, and never answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dead.Close() })
	check := func(code int, says string, args ...string) {
		t.Helper()
		r := prepare(t, t.TempDir(), filepath.Join(programs(t), "worker"), append(args, "--check")...).run().want(t, code, says)
		t.Logf("--check %v: exit code %d in %v", args, r.code, r.took)
		if r.took > slow*time.Second {
			t.Errorf("it took %v", r.took)
		}
	}
	check(1, "no live worker", "--redis", redisURL(t, rdb))
	w := startWorker(t, rdb)
	check(0, "live workers serve: default", "--redis", redisURL(t, rdb))
	check(0, `"ok":true`, "--redis", redisURL(t, rdb), "--json")
	check(1, "no live worker serves: other", "--redis", redisURL(t, rdb), "--queues", "default,other")
	check(1, "", "--redis", "redis://"+dead.Addr().String())
	check(1, "", "--redis", "redis://"+closedAddr(t))
	w.stop()
	check(1, "no live worker", "--redis", redisURL(t, rdb))
}

// startWorker starts cmd/worker over rdb and returns once it takes jobs.
func startWorker(t *testing.T, rdb redis.UniversalClient, args ...string) *process {
	t.Helper()
	w := prepare(t, t.TempDir(), filepath.Join(programs(t), "worker"), append(args, "--redis", redisURL(t, rdb))...)
	return w.start().ready(func(ctx context.Context) (pids []int, err error) {
		workers, err := fleet.New(rdb).Workers(ctx)
		for _, w := range workers {
			pids = append(pids, w.PID)
		}
		return pids, err
	})
}

// TestIdleWorkerStops within a second of SIGTERM or SIGINT, with exit code 0 and off the fleet's list.
func TestIdleWorkerStops(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
			w := startWorker(t, rdb, "--triggers", triggersHere(t), "--http", "127.0.0.1:0")
			begin := time.Now()
			w.signal(sig)
			if code := w.wait().ExitCode(); code != 0 {
				t.Errorf("%v: exit code %d", sig, code)
			}
			took := time.Since(begin)
			t.Logf("%v: stopped in %v", sig, took)
			if took > slow*time.Second {
				t.Errorf("%v: it took %v", sig, took)
			}
			if left, err := fleet.New(rdb).Workers(t.Context()); err != nil || len(left) > 0 {
				t.Errorf("%d workers are on the list (%v)", len(left), err)
			}
		}
	})
}

// TestBurst drains events and jobs and ends: with 0, or with 1 if a job failed for good.
func TestBurst(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		dir := t.TempDir()
		rules := "triggers:\n  - {name: note, on: com.acme.*, run: log:write, with: {message: 'seen ${event.id}'}}\n"
		if err := os.WriteFile(filepath.Join(dir, "rules.yaml"), []byte(rules), 0o600); err != nil {
			t.Fatal(err)
		}
		run := func(program string, args ...string) *process {
			return prepare(t, dir, filepath.Join(programs(t), program), append(args, "--redis", redisURL(t, rdb))...)
		}
		burst := func(code int, says ...string) {
			t.Helper()
			run("worker", "--burst", "--triggers", "rules.yaml").run().want(t, code, says...)
		}
		burst(0) // nothing is there
		run("enqueue", "--event", "com.acme.a", "--id", "e7").run().want(t, 0)
		run("enqueue", "log:write", `{"message":"by hand"}`).run().want(t, 0)
		run("enqueue", "log:write", `{"message":"much later"}`, "--in", "1h").run().want(t, 0)
		burst(0, "seen e7", "by hand")
		run("enqueue", "http:request", `{"url":"http://127.0.0.1:1"}`).run().want(t, 0)
		burst(1, "jobs failed for good: 1")
		b, err := fleet.New(rdb).Backlog(t.Context(), "default")
		if err != nil || b.Pending+b.Active+b.Retry > 0 || b.Scheduled != 1 || b.Dead != 1 {
			t.Errorf("%+v (%v) is left, want one scheduled job and a dead one", b, err)
		}
	})
}

// TestDrainingWorker has a job that would go on: the probes answer until the end, a doubled signal is one, a later one forces.
func TestDrainingWorker(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	url, called := neverAnswers(t)
	probes := closedAddr(t)
	w := prepare(t, t.TempDir(), filepath.Join(programs(t), "worker"), "--redis", redisURL(t, rdb), "--http", probes, "--grace", "10m")
	w.cmd.Env = append(w.cmd.Env, "BELLHOP_HANDLERS_HTTP_ALLOW=127.0.0.1")
	w.start()
	prepare(t, t.TempDir(), filepath.Join(programs(t), "enqueue"), "--redis", redisURL(t, rdb),
		"http:request", `{"url":"`+url+`"}`).run().want(t, 0)
	called()
	eventually(t, "the worker is ready", func() error { return probe(t, probes, "/readyz", http.StatusOK, "ok") })

	w.signal(syscall.SIGTERM)
	w.signal(syscall.SIGINT) // at once: timeout(1) signals its child, and then the group
	eventually(t, "the worker says that it drains", func() error {
		return probe(t, probes, "/readyz", http.StatusServiceUnavailable, "draining")
	})
	eventually(t, "the fleet knows", func() error {
		workers, err := fleet.New(rdb).Workers(t.Context())
		if err == nil && (len(workers) != 1 || !workers[0].Draining) {
			err = fmt.Errorf("the fleet's list: %+v", workers)
		}
		return err
	})
	if err := probe(t, probes, "/healthz", http.StatusOK, "ok"); err != nil {
		t.Error(err)
	}
	if w.exited() {
		t.Fatal("the doubled signal has ended the worker, in spite of its grace")
	}
	force(t, w)
	if said := w.stderr.String(); !strings.Contains(said, "recovered by other workers") {
		t.Errorf("what becomes of its job is not told: %s", said)
	}
}

// force signals until the worker has left its job.
func force(t *testing.T, w *process) {
	t.Helper()
	eventually(t, "a later signal forces", func() error {
		if !w.exited() {
			_ = w.cmd.Process.Signal(syscall.SIGTERM)
			return errors.New("it goes on")
		}
		return nil
	})
	if code := w.wait().ExitCode(); code != 130 {
		t.Errorf("exit code %d after the second signal, want 130", code)
	}
}

// neverAnswers is a server that takes one call and holds it until the test ends; called waits for that call.
func neverAnswers(t *testing.T) (url string, called func()) {
	t.Helper()
	taken, hold := make(chan struct{}), make(chan struct{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(hold); _ = l.Close() })
	go func() {
		if conn, err := l.Accept(); err == nil {
			close(taken)
			<-hold
			_ = conn.Close()
		}
	}()
	return "http://" + l.Addr().String(), func() {
		t.Helper()
		select {
		case <-taken:
		case <-time.After(patience):
			t.Fatal("the job does not run")
		}
	}
}

// probe asks one of the worker's own pages.
func probe(t *testing.T, addr, path string, code int, body string) error {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && (answer.StatusCode != code || !strings.Contains(string(text), body)) {
		err = fmt.Errorf("%s: %d %q, want %d and %q", path, answer.StatusCode, text, code, body)
	}
	return err
}
