package faults

import (
	"bytes"
	"cmp"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a worker in a child process. Its log is shown if the test fails.
type process struct {
	t     testing.TB
	role  role
	cmd   *exec.Cmd
	log   output
	ended chan struct{}
	err   error // set once ended is closed
}

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

// spawn starts a child of this binary, or of the one that the role names.
func spawn(t testing.TB, r role) *process {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, role: r, cmd: exec.Command(cmp.Or(r.binary, os.Args[0])), ended: make(chan struct{})}
	// The race detector would sleep for a second at each exit.
	p.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", roleVariable+"="+string(text), skewVariable+"="+strconv.Itoa(int(r.skew.Seconds())))
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	stdin, err := p.cmd.StdinPipe() // its end tells the child that the test is gone
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start worker %s: %v", r.Name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() { p.cleanUp(stdin) })
	return p
}

func (p *process) cleanUp(stdin io.Closer) {
	p.kill()
	_ = stdin.Close()
	if p.t.Failed() {
		text := p.log.String()
		p.t.Logf("log of worker %s:\n%s", p.role.Name, text[max(0, len(text)-8000):])
	}
}

// kill is kill -9, and waits for the end.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatalf("send %v to worker %s: %v", sig, p.role.Name, err)
	}
}

func (p *process) freeze() { p.t.Helper(); p.signal(syscall.SIGSTOP) }
func (p *process) thaw()   { p.t.Helper(); p.signal(syscall.SIGCONT) }

// stop sends SIGTERM and returns how long the worker took to end.
func (p *process) stop(limit time.Duration) time.Duration {
	p.t.Helper()
	began := time.Now()
	p.signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(limit):
		p.t.Fatalf("worker %s did not end within %v of SIGTERM", p.role.Name, limit)
	}
	if p.err != nil {
		p.t.Errorf("worker %s ended with %v", p.role.Name, p.err)
	}
	return time.Since(began)
}

// said counts a phrase in the worker's log.
func (p *process) said(phrase string) int { return strings.Count(p.log.String(), phrase) }
