package redisembed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

// serverNames are the programs we know how to run, the preferred one first.
var serverNames = []string{"redis-server", "valkey-server"}

// FindServer returns the path of a Redis-compatible server program in PATH.
func FindServer() (path string, found bool) {
	for _, name := range serverNames {
		if path, err := exec.LookPath(name); err == nil {
			return path, true
		}
	}
	return "", false
}

// SocketName is the file, inside a process's directory, where every server we
// start also listens. Only the server started in that directory can answer
// there, so an answer proves that the TCP port is ours and not that of a
// stranger who took it in the meantime.
const SocketName = "r.sock"

// Process is a running redis-server (or valkey-server) child. On Linux it dies
// with this process even when that is killed.
type Process struct {
	cmd  *exec.Cmd
	dir  string
	log  tail
	done chan struct{}
}

// StartProcess runs program in dir with the given configuration lines, plus the
// ones that make it ours (directory, control socket), and returns once it
// answers PING. It gives up when the server exits or ctx ends; the error then
// carries the last lines the server wrote.
func StartProcess(ctx context.Context, program, dir string, config []string, args ...string) (*Process, error) {
	file := configFile(dir)
	// A restart keeps what the server itself wrote into its file (Sentinel does).
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
		lines := append([]string{
			fmt.Sprintf("dir %q", dir),
			fmt.Sprintf("unixsocket %q", filepath.Join(dir, SocketName)),
			"unixsocketperm 700",
			"daemonize no",
		}, config...)
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			return nil, fmt.Errorf("write the configuration of %s: %w", program, err)
		}
	}

	p := &Process{dir: dir, done: make(chan struct{})}
	p.cmd = exec.Command(program, append([]string{file}, args...)...) //nolint:noctx // ctx bounds the start; the server lives until Close
	p.cmd.Dir = dir
	p.cmd.Stdout = &p.log
	p.cmd.Stderr = &p.log
	dieWithParent(p.cmd)
	if err := p.spawn(); err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	if err := p.waitReady(ctx); err != nil {
		p.Kill()
		return nil, fmt.Errorf("start %s: %w%s", program, err, p.log.hint())
	}
	return p, nil
}

func configFile(dir string) string { return filepath.Join(dir, "redis.conf") }

// spawn starts the child from a goroutine that keeps its thread until the child
// is gone: Linux sends the parent-death signal when the starting *thread* ends.
func (p *Process) spawn() error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // how it ended is of no interest: the tail of its log tells
		}
		close(p.done)
	}()
	return <-started
}

func (p *Process) waitReady(ctx context.Context) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if p.answers(ctx) {
			return nil
		}
		select {
		case <-p.done:
			return errors.New("it exited at once")
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// answers reports whether PING is answered on the control socket. A server that
// asks for a password is ready too.
func (p *Process) answers(ctx context.Context) bool {
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "unix", filepath.Join(p.dir, SocketName))
	if err != nil {
		return false
	}
	defer conn.Close() //nolint:errcheck // it was only asked
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return false
	}
	buf := make([]byte, 64)
	n, err := conn.Read(buf)
	return err == nil && (bytes.HasPrefix(buf[:n], []byte("+PONG")) || bytes.HasPrefix(buf[:n], []byte("-NOAUTH")))
}

// Pid is the child's process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed once the child is gone.
func (p *Process) Done() <-chan struct{} { return p.done }

// Log returns the last lines the server wrote.
func (p *Process) Log() string { return p.log.String() }

// Signal sends the child a signal.
func (p *Process) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// Kill ends the child at once, as a crash would, and waits until it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// FreePort returns a TCP port of 127.0.0.1 that nobody listens on. It stays
// below the range that kernels hand to outgoing connections, so that only
// another server can take it before it is used.
func FreePort() (int, error) {
	for range 100 {
		port := 18000 + rand.IntN(14000)
		if portIsFree(fmt.Sprintf("127.0.0.1:%d", port)) {
			return port, nil
		}
	}
	return 0, errors.New("no free TCP port between 18000 and 32000 on 127.0.0.1")
}

func portIsFree(addr string) bool {
	l, err := net.Listen("tcp", addr) //nolint:noctx // it answers at once
	if err != nil {
		return false
	}
	return l.Close() == nil
}

// tail keeps the end of what was written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailSize = 8 << 10

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
	return string(t.buf)
}

// hint formats the last three lines for an error message.
func (t *tail) hint() string {
	lines := strings.Split(strings.TrimSpace(t.String()), "\n")
	if last := strings.Join(lines[max(0, len(lines)-3):], " | "); last != "" {
		return "; it said: " + last
	}
	return ""
}
