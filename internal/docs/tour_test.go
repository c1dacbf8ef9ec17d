package docs_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binaries is where the commands are built.
var binaries string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "bellhop-docs-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binaries = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

const patience = time.Minute

// The README's tour, walked: what it says is pasted into a shell, and what it promises is seen.
func TestReadmeTour(t *testing.T) {
	t.Parallel()
	shell := &visitor{t: t, dir: t.TempDir()}
	var commands []string
	for _, b := range blocks(t, "README.md") {
		switch b.lang {
		case "sh":
			commands = append(commands, b.lines...)
		case "yaml":
			if err := os.WriteFile(filepath.Join(shell.dir, "triggers.yaml"), []byte(b.text()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	next := func(want string) string {
		t.Helper()
		for len(commands) > 0 {
			command := commands[0]
			commands = commands[1:]
			if !strings.HasPrefix(command, "make ") {
				if !strings.Contains(command, want) {
					t.Fatalf("the README's next command is %q, want one with %q", command, want)
				}
				return command
			}
		}
		t.Fatalf("the README has no more commands, want one with %q", want)
		return ""
	}

	w := shell.start(next("--dev"))
	if out := shell.run(next("log:write")); !strings.Contains(out, "is done") {
		t.Errorf("enqueue says %q", out)
	}
	w.logs(`msg=hello|"msg":"hello"`)
	misspelt := shell.try(`go run ./cmd/enqueue log:write '{"mesage": "hello"}'`)
	if said := "no field \"mesage\" (it has message, fields, level)"; !strings.Contains(misspelt, said) || !strings.Contains(strings.Join(linesOf(t, "README.md"), "\n"), said) {
		t.Errorf("a misspelt payload: %q; the README shows %q", misspelt, said)
	}
	publish := next("--event")
	shell.run(publish)
	w.logs(`event com.acme.email.received`)
	w.stop()

	w = shell.start(next("--triggers"))
	w.logs(`Trigger note-inbox;`)
	w.logs(`triggers active.*note-inbox`)
	shell.run(publish)
	w.logs(`mail from ada@example.com`)
	if out := shell.run(next("--list")); !strings.Contains(out, "http:request") {
		t.Errorf("--list shows %q", out)
	}
	w.stop()
}

// visitor pastes commands.
type visitor struct {
	t   *testing.T
	dir string
	env []string
}

// command makes the pasted line one that runs the built binary, in a home that has nothing in it.
func (v *visitor) command(ctx context.Context, line string) *exec.Cmd {
	line = strings.NewReplacer("go run ./cmd/", built(v.t)+"/").Replace(line)
	cmd := exec.CommandContext(ctx, "sh", "-c", "exec "+line)
	cmd.Dir = v.dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + v.dir}, v.env...)
	return cmd
}

func (v *visitor) run(line string) string {
	v.t.Helper()
	out, err := v.command(v.t.Context(), line).CombinedOutput()
	if err != nil {
		v.t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// try runs what fails.
func (v *visitor) try(line string) string {
	v.t.Helper()
	out, err := v.command(v.t.Context(), line).CombinedOutput()
	if err == nil {
		v.t.Errorf("%s: did not fail\n%s", line, out)
	}
	return string(out)
}

// running is a worker in the first shell.
type running struct {
	t   *testing.T
	cmd *exec.Cmd

	mu    sync.Mutex
	lines []string
	more  chan struct{}
}

var address = regexp.MustCompile(`redis://\S+`)

// start returns once the worker takes jobs. Where another Redis has the usual port, the commands get the address that the
// banner shows.
func (v *visitor) start(line string) *running {
	v.t.Helper()
	v.env = nil
	w := &running{t: v.t, cmd: v.command(context.WithoutCancel(v.t.Context()), line), more: make(chan struct{}, 1)}
	out, in := io.Pipe()
	w.cmd.Stdout, w.cmd.Stderr = in, in
	if err := w.cmd.Start(); err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() {
		_ = w.cmd.Process.Kill()
		if v.t.Failed() {
			w.mu.Lock()
			defer w.mu.Unlock()
			v.t.Logf("the worker wrote:\n%s", strings.Join(w.lines, "\n"))
		}
	})
	go w.read(out)
	v.env = []string{"BELLHOP_REDIS_URL=" + address.FindString(w.logs(`redis://`))}
	w.logs(`worker started`)
	return w
}

func (w *running) read(out io.Reader) {
	for s := bufio.NewScanner(out); s.Scan(); {
		w.mu.Lock()
		w.lines = append(w.lines, s.Text())
		w.mu.Unlock()
		select {
		case w.more <- struct{}{}:
		default:
		}
	}
}

// logs waits for a line and returns it.
func (w *running) logs(pattern string) string {
	w.t.Helper()
	re := regexp.MustCompile(pattern)
	end := time.After(patience)
	for {
		w.mu.Lock()
		for _, line := range w.lines {
			if re.MatchString(line) {
				w.mu.Unlock()
				return line
			}
		}
		w.mu.Unlock()
		select {
		case <-w.more:
		case <-end:
			w.t.Fatalf("the worker did not write %q within %v, but:\n%s", pattern, patience, strings.Join(w.lines, "\n"))
		}
	}
}

// stop is Ctrl-C.
func (w *running) stop() {
	w.t.Helper()
	if err := w.cmd.Process.Signal(syscall.SIGINT); err != nil {
		w.t.Fatal(err)
	}
	if err := w.cmd.Wait(); err != nil {
		w.t.Errorf("Ctrl-C: %v", err)
	}
}
