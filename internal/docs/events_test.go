package docs_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/bellhop-dev/bellhop/internal/rabbittest"
)

// docs/events.md, walked from its first line to its last: YAML blocks become files, a "sh" block that starts a worker starts it, "bash" blocks
// and programs run, and each "text" block is what the one before it has to write. A "server" runs on, and what "text each" says is what
// every one of them has to write.
func TestEventsWalk(t *testing.T) {
	t.Parallel()
	vhost := rabbittest.Shared(t).VHost(t)
	r := &reader{t: t, visitor: visitor{t: t, dir: t.TempDir()}, places: places(t, vhost), vhost: vhost}
	defer r.leave()
	r.walk(blocks(t, "docs/events.md"))
	want := map[string]int{"bash": 12, "text": 14, "text each": 2, "program": 4, "server": 4, "start": 4}
	for _, what := range slices.Sorted(maps.Keys(want)) {
		if r.done[what] < want[what] {
			t.Errorf("%d blocks were %s, want %d at least: does this test still read the page?", r.done[what], what, want[what])
		}
	}
}

// reader follows a page.
type reader struct {
	visitor
	t       *testing.T
	places  *strings.Replacer
	vhost   *rabbittest.VHost
	config  map[string]any // of bellhop.yaml so far
	worker  *running
	servers []*server // those that run beside it
	said    string    // by the last block
	done    map[string]int
}

// places are the addresses of the page, and those that are free here.
func places(t *testing.T, vhost *rabbittest.VHost) *strings.Replacer {
	t.Helper()
	pairs := []string{"amqp://127.0.0.1:5672/", vhost.URL(), "go run ./cmd/", built(t) + "/"}
	for _, port := range []string{"9001", "9002", "9003"} {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		pairs = append(pairs, port, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
		defer l.Close() // it holds the port, so that the next one is another
	}
	return strings.NewReplacer(pairs...)
}

func (r *reader) walk(page []block) {
	r.t.Helper()
	r.config, r.done = make(map[string]any), make(map[string]int)
	for i, b := range page {
		if r.t.Failed() {
			return
		}
		text := r.places.Replace(b.text())
		lang, kind, _ := strings.Cut(b.lang, " ")
		switch {
		case lang == "sh" && strings.Contains(text, "worker --dev"):
			r.start(strings.TrimSpace(b.text()))
			kind = "start"
		case lang == "sh", b.lang == "":
			continue
		case lang == "yaml":
			r.keep(b, text)
			continue
		case lang == "bash":
			r.said = r.run(b, r.command(r.t.Context(), "bash", "-euc", text))
			kind = lang
		case kind == "program":
			r.said = r.run(b, r.program(i, lang, text))
		case kind == "server":
			r.servers = append(r.servers, r.serve(b, r.program(i, lang, text)))
		case b.lang == "text":
			if !matches(r.said, text) {
				r.t.Errorf("%s:%d: the page says\n%s\nand it was\n%s", b.doc, b.line, text, r.said)
			}
			kind = lang
		case b.lang == "text each":
			for _, s := range r.servers {
				s.wait(r.t, b, text)
			}
			kind = b.lang
		default:
			r.t.Errorf("%s:%d: what is to be done with a block of %q?", b.doc, b.line, b.lang)
		}
		r.done[kind]++
	}
}

// matches compares with a pattern in which "..." stands for anything, and the order of lines counts.
func matches(got, pattern string) bool {
	parts := strings.Split(regexp.QuoteMeta(strings.TrimSpace(pattern)), `\.\.\.`)
	return regexp.MustCompile(`(?s)^` + strings.Join(parts, `.*`) + `$`).MatchString(strings.TrimSpace(got))
}

// start is Ctrl-C, and the worker anew.
func (r *reader) start(line string) {
	r.t.Helper()
	r.leave()
	r.worker = r.visitor.start(line)
	r.env = []string{
		"BELLHOP_REDIS_URL=" + address.FindString(r.worker.logs(`redis://`)),
		"BASE=" + strings.Fields(r.worker.logs(`Gateway http://`))[1],
		"KEY=" + strings.Fields(r.worker.logs(`Key +bh_`))[1],
		"AUTH=Authorization: Bearer " + strings.Fields(r.worker.logs(`Key +bh_`))[1],
	}
	if _, ok := r.config["sources"]; ok {
		awaitQueue(r.t, r.vhost, "orders")
	}
}

// awaitQueue waits until the worker has made the queue, which a reader is too slow to overtake.
func awaitQueue(t *testing.T, vhost *rabbittest.VHost, queue string) {
	t.Helper()
	conn := vhost.Connect(t)
	within(t, "RabbitMQ has the queue "+queue, func() bool {
		channel, err := conn.Channel() // one that asked for what is not there is closed
		if err != nil {
			t.Fatal(err)
		}
		defer channel.Close()
		_, err = channel.QueueDeclarePassive(queue, true, false, false, false, nil)
		return err == nil
	})
}

func (r *reader) leave() {
	for _, s := range r.servers {
		s.stop()
	}
	r.servers = nil
	if r.worker != nil {
		r.worker.stop()
		r.worker = nil
	}
}

// keep puts a block into triggers.yaml, or adds it to bellhop.yaml.
func (r *reader) keep(b block, text string) {
	r.t.Helper()
	var top map[string]any
	if err := yaml.Unmarshal([]byte(text), &top); err != nil {
		r.t.Fatalf("%s:%d: %v", b.doc, b.line, err)
	}
	name, data := "triggers.yaml", []byte(text)
	if _, rules := top["triggers"].([]any); !rules {
		merge(r.config, top)
		all, err := yaml.Marshal(r.config)
		if err != nil {
			r.t.Fatal(err)
		}
		name, data = "bellhop.yaml", all
	}
	if err := os.WriteFile(filepath.Join(r.dir, name), data, 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// merge adds sections to sections and lists to lists.
func merge(into, from map[string]any) {
	for key, value := range from {
		switch value := value.(type) {
		case map[string]any:
			if inner, ok := into[key].(map[string]any); ok {
				merge(inner, value)
				continue
			}
		case []any:
			if inner, ok := into[key].([]any); ok {
				into[key] = append(inner, value...)
				continue
			}
		}
		into[key] = value
	}
}

// command has what the reader's shell has.
func (r *reader) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = r.dir
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "BELLHOP_") {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	cmd.Env = append(cmd.Env, r.env...)
	return cmd
}

func (r *reader) program(n int, lang, text string) *exec.Cmd {
	r.t.Helper()
	suffix := map[string]string{"go": ".go", "python": ".py", "js": ".mjs"}[lang]
	file := filepath.Join(r.dir, "program"+strconv.Itoa(n)+suffix)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	ctx := context.WithoutCancel(r.t.Context())
	switch lang {
	case "python":
		return r.command(ctx, "python3", file)
	case "js":
		return r.command(ctx, "node", file)
	}
	binary := strings.TrimSuffix(file, suffix)
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, file)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		r.t.Fatalf("a Go program of the page does not compile: %v\n%s", err, out)
	}
	return r.command(ctx, binary)
}

// run returns what a block writes.
func (r *reader) run(b block, cmd *exec.Cmd) string {
	r.t.Helper()
	var out, faults bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &faults
	if err := cmd.Run(); err != nil {
		r.t.Errorf("%s:%d: %v\n%s%s", b.doc, b.line, err, out.String(), faults.String())
	}
	return out.String()
}

// server is a program that runs on.
type server struct {
	cmd *exec.Cmd

	mu  sync.Mutex
	out bytes.Buffer
}

// serve returns once the server listens, if it is one that does.
func (r *reader) serve(b block, cmd *exec.Cmd) *server {
	r.t.Helper()
	s := &server{cmd: cmd}
	cmd.Stdout, cmd.Stderr = s, io.Discard
	if err := cmd.Start(); err != nil {
		r.t.Fatalf("%s:%d: %v", b.doc, b.line, err)
	}
	port := regexp.MustCompile(`900[123]`).FindString(b.text())
	if port == "" {
		return s
	}
	within(r.t, fmt.Sprintf("%s:%d listens", b.doc, b.line), func() bool {
		conn, err := new(net.Dialer).DialContext(r.t.Context(), "tcp", "127.0.0.1:"+r.places.Replace(port))
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return s
}

func (s *server) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(p)
}

func (s *server) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String()
}

func (s *server) wait(t *testing.T, b block, text string) {
	t.Helper()
	within(t, fmt.Sprintf("%s:%d: a server writes\n%s", b.doc, b.line, text), func() bool { return matches(s.said(), text) })
}

func (s *server) stop() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// within looks until it is so.
func within(t *testing.T, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(patience); !so(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}
