package rabbittest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
)

// process is a child that is gone when we are.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	out  tail
}

// startProcess runs a program in dir and notes its process id in a file there, for as long as it lives: see guard.
func startProcess(dir, name string, env []string, program string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(program, args...), done: make(chan struct{})} //nolint:noctx // it ends by kill, or with us
	p.cmd.Dir, p.cmd.Env = dir, env
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	dieWithParent(p.cmd)

	note := filepath.Join(dir, name+".pid")
	started := make(chan error, 1)
	go func() {
		// Linux tells of a parent's death when the starting *thread* ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := p.cmd.Start()
		if err == nil {
			err = os.WriteFile(note, []byte(strconv.Itoa(p.cmd.Process.Pid)), 0o600)
		}
		started <- err
		if p.cmd.Process != nil {
			_ = p.cmd.Wait() // how it ended is of no interest: what it said tells
			_ = os.Remove(note)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	return p, nil
}

func (p *process) signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

func (p *process) log() string { return p.out.String() }

// guard starts a shell that outlives us, however we end: it then kills what still runs in dir, and removes dir. The function
// that it returns has it do so at once.
func guard(dir string) (end func(), err error) {
	const script = `cat; for note in "$1"/*.pid; do [ -e "$note" ] && kill -9 "$(cat "$note")"; done; rm -rf "$1"`
	cmd := exec.Command("sh", "-c", script, "sh", dir) //nolint:noctx // it is to outlive us
	ownGroup(cmd)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("guard %s: %w", dir, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("guard %s: %w", dir, err)
	}
	var once sync.Once
	return func() {
		once.Do(func() {
			_ = in.Close()
			_ = cmd.Wait()
		})
	}, nil
}

// tail keeps the end of what was written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailSize = 16 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if over := len(t.buf) - tailSize; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(bytes.ToValidUTF8(t.buf, nil)))
}
