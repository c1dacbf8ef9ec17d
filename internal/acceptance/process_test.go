package acceptance_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// patience bounds every wait for another process. What is awaited takes a fraction of it, on a machine that has time.
const patience = 2 * time.Minute

// process is a child whose output is kept, and shown if the test fails.
type process struct {
	t      testing.TB
	name   string
	cmd    *exec.Cmd
	stdout output
	stderr output
	ended  chan struct{}
}

// output is what a child has written so far.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// prepare makes a child that runs in dir with no setting of ours from outside, and dies with the test.
func prepare(t testing.TB, dir, program string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: program, ended: make(chan struct{})}
	p.cmd = exec.CommandContext(t.Context(), program, args...)
	p.cmd.Dir = dir
	p.cmd.Env = ownEnv()
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	dieWithParent(p.cmd)
	return p
}

func ownEnv() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "BELLHOP_") {
			env = append(env, v)
		}
	}
	return env
}

func (p *process) start() *process {
	p.t.Helper()
	if err := p.cmd.Start(); err != nil {
		p.t.Fatalf("start %s: %v", p.name, err)
	}
	p.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
		if p.t.Failed() {
			p.t.Logf("%s %s\nstdout:\n%s\nstderr:\n%s", p.name, strings.Join(p.cmd.Args[1:], " "), tail(p.stdout.String()), tail(p.stderr.String()))
		}
	})
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	return p
}

func tail(s string) string {
	const most = 4 << 10
	if len(s) > most {
		return "...\n" + s[len(s)-most:]
	}
	return s
}

// wait returns how the child ended.
func (p *process) wait() *os.ProcessState {
	p.t.Helper()
	select {
	case <-p.ended:
		return p.cmd.ProcessState
	case <-time.After(patience):
		p.t.Fatalf("%s has not ended within %v", p.name, patience)
		return nil
	}
}

// exited reports whether the child is gone.
func (p *process) exited() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// signal sends sig and returns at once.
func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatalf("send %v to %s: %v", sig, p.name, err)
	}
}

// stop sends SIGTERM, wants exit code 0, and tells how long it took.
func (p *process) stop() time.Duration {
	p.t.Helper()
	begin := time.Now()
	p.signal(syscall.SIGTERM)
	if code := p.wait().ExitCode(); code != 0 {
		p.t.Fatalf("%s: exit code %d after SIGTERM, want 0", p.name, code)
	}
	return time.Since(begin)
}

// ran is how a short command ended.
type ran struct {
	code   int
	stdout string
	stderr string
	took   time.Duration
	state  *os.ProcessState
}

// run runs a command to its end.
func (p *process) run() ran {
	p.t.Helper()
	begin := time.Now()
	state := p.start().wait()
	return ran{state.ExitCode(), p.stdout.String(), p.stderr.String(), time.Since(begin), state}
}

func (r ran) want(t testing.TB, code int, fragments ...string) ran {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d\nstdout: %s\nstderr: %s", r.code, code, tail(r.stdout), tail(r.stderr))
	}
	for _, f := range fragments {
		if !strings.Contains(r.stdout+r.stderr, f) {
			t.Errorf("%q is not in its output\nstdout: %s\nstderr: %s", f, tail(r.stdout), tail(r.stderr))
		}
	}
	return r
}

// eventually waits until ok returns nil.
func eventually(t testing.TB, what string, ok func() error) {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	look := time.NewTicker(3 * time.Millisecond)
	defer look.Stop()
	for {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-look.C:
		case <-timeout.C:
			t.Fatalf("%s: not within %v: %v", what, patience, err)
		}
	}
}

// redisURL is where other processes find the server of a test's client.
func redisURL(t testing.TB, rdb redis.UniversalClient) string {
	t.Helper()
	c, ok := rdb.(*redis.Client)
	if !ok {
		t.Fatalf("a %T has no one address", rdb)
	}
	return "redis://" + c.Options().Addr + "/0"
}

// ready waits until a worker of this process id is on the fleet's list.
func (p *process) ready(workers func(context.Context) ([]int, error)) *process {
	p.t.Helper()
	eventually(p.t, p.name+" joins the fleet", func() error {
		if p.exited() {
			p.t.Fatalf("%s has ended: %v", p.name, p.cmd.ProcessState)
		}
		pids, err := workers(p.t.Context())
		if err != nil {
			return err
		}
		if slices.Contains(pids, p.cmd.Process.Pid) {
			return nil
		}
		return errors.New("not on the list: " + fmt.Sprint(pids))
	})
	return p
}
