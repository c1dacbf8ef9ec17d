package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime/pprof"
	"sync"
	"syscall"
	"time"

	"github.com/bellhop-dev/bellhop/internal/redisconn"
)

// Workers and producers run in processes of their own: this program, started again with childFlag. The first line a child
// reads is its order, the others are words; it answers in lines too, and ends when its input does.
const childFlag = "-child"

// order tells a child what to do.
type order struct {
	Role   string `json:"role"`
	Engine string `json:"engine"`
	Addr   string `json:"addr"`

	Worker  workerSpec `json:"worker"`
	Workers int        `json:"workers,omitempty"` // how many of them, or callers of the bare scripts, in one process

	Profile string `json:"profile,omitempty"` // file for the CPU profile

	Jobs      int           `json:"jobs,omitempty"`
	Bulk      bool          `json:"bulk,omitempty"`
	For       time.Duration `json:"for,omitempty"`
	PerSecond float64       `json:"per_second,omitempty"` // jobs, at random; if zero, the gaps say when
	MinGap    time.Duration `json:"min_gap,omitempty"`
	MaxGap    time.Duration `json:"max_gap,omitempty"`
}

// The words to a child after its order.
const (
	wordGo  = "go"  // begin
	wordCPU = "cpu" // tell how much CPU time you have used
)

// message is a line from a child.
type message struct {
	Kind  string `json:"kind"`
	Error string `json:"error,omitempty"`

	// Of a worker: how many jobs it has run, when the first began and the last ended, and when this was told, in Unix ns.
	Handled int64 `json:"handled,omitempty"`
	First   int64 `json:"first,omitempty"`
	Last    int64 `json:"last,omitempty"`
	At      int64 `json:"at,omitempty"`

	CPU    time.Duration `json:"cpu,omitempty"`
	Values Values        `json:"values,omitempty"`
}

const (
	kindReady    = "ready"
	kindProgress = "progress"
	kindCPU      = "cpu"
	kindResult   = "result"
	kindError    = "error"
)

// child is a started child, seen from its parent.
type child struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan message
}

// startChild starts a child and returns once it is ready to go.
func startChild(ctx context.Context, o order) (*child, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.CommandContext(ctx, program, childFlag), lines: make(chan message, 4096)}
	c.cmd.Stderr = os.Stderr
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a %s process: %w", o.Role, err)
	}
	go c.read(out)
	if err := json.NewEncoder(c.in).Encode(o); err != nil {
		c.kill()
		return nil, fmt.Errorf("tell a %s process what to do: %w", o.Role, err)
	}
	if _, err := c.await(ctx, kindReady); err != nil {
		c.kill()
		return nil, fmt.Errorf("start a %s process: %w", o.Role, err)
	}
	return c, nil
}

func (c *child) read(out io.Reader) {
	defer close(c.lines)
	decoder := json.NewDecoder(out)
	for {
		var m message
		if err := decoder.Decode(&m); err != nil {
			return
		}
		c.lines <- m
	}
}

func (c *child) say(word string) error {
	_, err := fmt.Fprintln(c.in, word)
	return err
}

// await returns the next message of this kind and passes over the others.
func (c *child) await(ctx context.Context, kind string) (message, error) {
	for {
		select {
		case m, ok := <-c.lines:
			switch {
			case !ok:
				return message{}, errors.New("the process has ended early")
			case m.Kind == kindError:
				return message{}, errors.New(m.Error)
			case m.Kind == kind:
				return m, nil
			}
		case <-ctx.Done():
			return message{}, fmt.Errorf("no %s from a process: %w", kind, context.Cause(ctx))
		}
	}
}

// kill ends the child at once: its server is thrown away with it. What it still had to say is lost.
func (c *child) kill() {
	_ = c.in.Close()
	_ = c.cmd.Process.Kill()
	for range c.lines { // its reader must see the end
	}
	_ = c.cmd.Wait()
}

// runChild starts a child, lets it go, and returns its result.
func runChild(ctx context.Context, o order) (message, error) {
	c, err := startChild(ctx, o)
	if err != nil {
		return message{}, err
	}
	defer c.kill()
	if err := c.say(wordGo); err != nil {
		return message{}, err
	}
	m, err := c.await(ctx, kindResult)
	if err != nil {
		return message{}, fmt.Errorf("%s of %s: %w", o.Role, o.Engine, err)
	}
	return m, nil
}

// parent is a child's side of the same.
type parent struct {
	in  *bufio.Scanner
	mu  sync.Mutex
	out *json.Encoder
}

// childMain is what a child runs.
func childMain(ctx context.Context) int {
	redisconn.QuietDriver(slog.New(slog.DiscardHandler))
	p := &parent{in: bufio.NewScanner(os.Stdin), out: json.NewEncoder(os.Stdout)}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := p.serve(ctx); err != nil {
		p.tell(message{Kind: kindError, Error: err.Error()})
		p.in.Scan() // the parent ends us once it has read it
		return 1
	}
	return 0
}

func (p *parent) serve(ctx context.Context) error {
	var o order
	if !p.in.Scan() {
		return errors.New("no order came: -child is for bench itself")
	}
	if err := json.Unmarshal(p.in.Bytes(), &o); err != nil {
		return fmt.Errorf("order: %w", err)
	}
	role, ok := roles()[o.Role]
	if !ok {
		return fmt.Errorf("role %q is unknown", o.Role)
	}
	return role(ctx, p, o)
}

func (p *parent) tell(m message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.out.Encode(m) // where nobody listens any more, the input ends too, and with it this process
}

// ready tells that all is prepared, and waits for the word to begin.
func (p *parent) ready() error {
	p.tell(message{Kind: kindReady})
	if !p.in.Scan() || p.in.Text() != wordGo {
		return errors.New("the parent has gone")
	}
	return nil
}

// untilEnd answers the parent's questions until it closes the line. A profile ends with the first one.
func (p *parent) untilEnd() {
	for p.in.Scan() {
		if p.in.Text() == wordCPU {
			pprof.StopCPUProfile()
			p.tell(message{Kind: kindCPU, CPU: cpuTime()})
		}
	}
}

// cpuTime is what this process has used, user and system.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
