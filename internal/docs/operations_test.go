package docs_test

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/internal/redistest"
)

// The ACL user of docs/operations.md may do all that a worker with triggers and the enqueue command do.
func TestACLUserIsEnough(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.WithUser("bellhop", "change-me", aclRules(t)...), redistest.WithAOF())
	dir := t.TempDir()
	const rule = "triggers:\n  - {name: t, on: a.b, run: log:write, with: {message: \"${event.data.m}\"}}\n"
	if err := os.WriteFile(filepath.Join(dir, "triggers.yaml"), []byte(rule), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(command string, args ...string) string {
		t.Helper()
		file := filepath.Join(built(t), command) // may take its time
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, file, args...)
		cmd.Dir, cmd.Env = dir, []string{"HOME=" + dir, "BELLHOP_REDIS_URL=" + server.URL()}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s %q: %v\n%s", command, args, err, out)
		}
		return string(out)
	}
	run("enqueue", "log:write", `{"message":"later"}`, "--in", "1ms", "--unique", "1m")
	run("enqueue", "log:write", `{"message":"now"}`, "--id", "one")
	run("enqueue", "--event", "a.b", `{"m":"hello"}`)
	run("enqueue", "--event", "a.b", `{"m":7}`) // a dead match
	out := run("worker", "--burst", "--triggers", "triggers.yaml")
	for _, want := range []string{`"msg":"now"`, `"msg":"hello"`, "dead match is kept"} {
		if !strings.Contains(out, want) {
			t.Errorf("the worker did not write %s:\n%s", want, out)
		}
	}
	if strings.Contains(out, "does not answer") || strings.Contains(out, "NOPERM") {
		t.Errorf("something is denied:\n%s", out)
	}
	run("enqueue", "--dead-matches")
	run("enqueue", "--list")
	overHTTP(t, dir, server.URL(), run)
	crash(t, dir, server.URL(), run)

	refused, err := server.Admin().ACLLog(t.Context(), 100).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range refused {
		t.Errorf("refused to %s: %s %s in %s", entry.Username, entry.Reason, entry.Object, entry.Context)
	}
}

// overHTTP has a gateway do all that it does in Redis.
func overHTTP(t *testing.T, dir, url string, run func(string, ...string) string) {
	t.Helper()
	addr, private := freeAddr(t), freeAddr(t)
	said := strings.TrimSpace(run("gateway", "keys", "create", "--name", "ops", "--scopes", "admin"))
	key := said[strings.LastIndexByte(said, '\n')+1:] // what is said beside it goes to stderr
	run("gateway", "keys", "list")
	served := exec.CommandContext(t.Context(), filepath.Join(built(t), "gateway"), "--addr", addr, "--private-addr", private)
	served.Dir, served.Env = dir, []string{"HOME=" + dir, "BELLHOP_REDIS_URL=" + url, `BELLHOP_HOOKS=[{name: h, kind: none, insecure_unsigned: true}]`}
	if err := served.Start(); err != nil {
		t.Fatal(err)
	}
	defer served.Wait() //nolint:errcheck // it was told to stop
	defer func() { _ = served.Process.Signal(syscall.SIGTERM) }()
	for end := time.Now().Add(patience); request(t, "", http.MethodGet, "http://"+private+"/readyz", "") != http.StatusOK; <-time.After(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the gateway is not ready")
		}
	}
	base := "http://" + addr
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{http.MethodPost, "/v1/events", `{"specversion":"1.0","id":"1","source":"/s","type":"a.c"}`, http.StatusCreated},
		{http.MethodGet, "/v1/events?type=a.*", "", http.StatusOK},
		{http.MethodPost, "/v1/jobs", `{"task":"log:write","payload":{"message":"m"},"id":"over-http","in":"1h"}`, http.StatusCreated},
		{http.MethodGet, "/v1/jobs/over-http?wait=10ms", "", http.StatusOK},
		{http.MethodDelete, "/v1/jobs/over-http", "", http.StatusNoContent},
		{http.MethodGet, "/v1/tasks", "", http.StatusOK},
		{http.MethodPut, "/v1/triggers/over-http", `{"on":"a.c","run":"log:write","with":{"message":"m"}}`, http.StatusCreated},
		{http.MethodGet, "/v1/triggers", "", http.StatusOK},
		{http.MethodDelete, "/v1/triggers/over-http", "", http.StatusNoContent},
		{http.MethodGet, "/v1/queues", "", http.StatusOK},
		{http.MethodGet, "/v1/queues/default/undecodable", "", http.StatusOK},
		{http.MethodDelete, "/v1/queues/default/undecodable/none", "", http.StatusNotFound},
		{http.MethodGet, "/v1/endpoints", "", http.StatusOK},
		{http.MethodGet, "/v1/endpoints/none?attempts=5", "", http.StatusNotFound},
		{http.MethodPost, "/v1/events/replay", `{"type":"a.c"}`, http.StatusAccepted},
		{http.MethodPost, "/hooks/h", `{}`, http.StatusAccepted},
	} {
		if got := request(t, key, c.method, base+c.path, c.body); got != c.want {
			t.Errorf("%s %s: %d, expected %d", c.method, c.path, got, c.want)
		}
	}
	run("worker", "--burst")
}

// request answers with the status, 0 if there was none.
func request(t *testing.T, key, method, url, body string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if strings.HasSuffix(url, "/v1/events") && body != "" {
		req.Header.Set("Content-Type", "application/cloudevents+json")
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
		req.Header.Set("Idempotency-Key", strconv.Itoa(len(url))+method)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Logf("%s %s: %v", method, url, err)
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// crash kills a worker that runs a job, and waits until another one runs it: long before its lease, half a minute, is over.
func crash(t *testing.T, dir, url string, run func(string, ...string) string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	calls := make(chan net.Conn)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				close(calls)
				return
			}
			calls <- conn
		}
	}()
	worker := func() *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), filepath.Join(built(t), "worker"), "--grace", "10ms")
		cmd.Dir, cmd.Env = dir, []string{"HOME=" + dir, "BELLHOP_REDIS_URL=" + url, "BELLHOP_HANDLERS_HTTP_ALLOW=127.0.0.1"}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		return cmd
	}
	called := func() net.Conn {
		select {
		case conn := <-calls:
			return conn
		case <-time.After(patience):
			t.Fatalf("the job does not run within %v", patience)
			return nil
		}
	}
	run("enqueue", "http:request", `{"url":"http://`+l.Addr().String()+`"}`)
	first := worker()
	defer called().Close()
	second := worker()
	waitUntilServed(t, url, 2)
	begin := time.Now()
	_ = first.Process.Kill()
	defer called().Close()
	took := time.Since(begin)
	t.Logf("the job of a killed worker ran again after %v", took)
	if took > 15*time.Second {
		t.Errorf("the job of a killed worker ran again after %v: the user keeps workers from seeing each other", took)
	}
	_ = second.Process.Signal(syscall.SIGTERM)
	_ = second.Wait()
}

// waitUntilServed waits until n workers are alive.
func waitUntilServed(t *testing.T, url string, n int) {
	t.Helper()
	opts, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(opts)
	defer rdb.Close()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for end := time.After(patience); ; {
		workers, err := fleet.New(rdb).Workers(t.Context())
		if err == nil && len(workers) == n {
			return
		}
		select {
		case <-look.C:
		case <-end:
			t.Fatalf("%d workers are alive (%v), want %d", len(workers), err, n)
		}
	}
}

func aclRules(t *testing.T) []string {
	t.Helper()
	for _, b := range blocks(t, "docs/operations.md") {
		if b.lang == "acl" {
			rules, ok := strings.CutPrefix(b.lines[0], "user bellhop on >change-me ")
			if !ok {
				t.Fatalf("%s:%d: not the line that this test knows", b.doc, b.line)
			}
			return strings.Fields(rules)
		}
	}
	t.Fatal("docs/operations.md has no ACL")
	return nil
}

// Every key that a log line may carry stands in the table of docs/operations.md, and the table has no others.
func TestLogKeysAreExplained(t *testing.T) {
	t.Parallel()
	told := make(map[string]bool)
	for _, line := range section(t, "docs/operations.md", "## Logs") {
		if cells := strings.Split(line, "|"); len(cells) > 2 {
			for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(cells[1], -1) {
				told[m[1]] = true
			}
		}
	}
	used := logKeys(t)
	for key, where := range used {
		if !told[key] {
			t.Errorf("%s logs the key %q: add it to the table in docs/operations.md", where, key)
		}
	}
	for key := range told {
		if used[key] == "" {
			t.Errorf("docs/operations.md explains the key %q, which nobody logs", key)
		}
	}
}

func section(t *testing.T, doc, title string) []string {
	t.Helper()
	lines := linesOf(t, doc)
	from := slices.Index(lines, title)
	if from < 0 {
		t.Fatalf("%s has no section %q", doc, title)
	}
	lines = lines[from+1:]
	if to := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "## ") }); to >= 0 {
		lines = lines[:to]
	}
	return lines
}

// logKeys finds the literal keys in calls of a logger's methods and of slog's and our attribute makers, and where each is first used.
func logKeys(t *testing.T) map[string]string {
	t.Helper()
	keys := make(map[string]string)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch rel := strings.TrimPrefix(filepath.ToSlash(path), root+"/"); {
		case err != nil:
			return err
		case d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || rel == "examples" || rel == "bench" || d.Name() == "testdata"):
			return filepath.SkipDir
		case strings.HasSuffix(rel, ".go") && !strings.HasSuffix(rel, "_test.go"):
			return keysOf(path, rel, keys)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// pairsFrom is where key and value alternate in a logger's call.
var pairsFrom = map[string]int{
	"Debug": 1, "Info": 1, "Warn": 1, "Error": 1, "With": 0,
	"DebugContext": 2, "InfoContext": 2, "WarnContext": 2, "ErrorContext": 2, "Log": 3,
}

func keysOf(path, rel string, keys map[string]string) error {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	note := func(e ast.Expr) {
		if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if key, err := strconv.Unquote(lit.Value); err == nil && keys[key] == "" {
				keys[key] = rel
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		switch f := call.Fun.(type) {
		case *ast.Ident:
			if f.Name == "groupOf" {
				note(call.Args[0])
			}
		case *ast.SelectorExpr:
			if x, ok := f.X.(*ast.Ident); ok && x.Name == "slog" {
				switch f.Sel.Name {
				case "String", "Int", "Int64", "Any", "Bool", "Duration", "Time":
					note(call.Args[0])
				}
			}
			if from, ok := pairsFrom[f.Sel.Name]; ok && isLogger(f.X) {
				for i := from; i < len(call.Args); i += 2 {
					note(call.Args[i])
				}
			}
		}
		return true
	})
	return nil
}

// isLogger tells by the name: log, p.log, runner.Logger, logger(...).
func isLogger(e ast.Expr) bool {
	switch x := e.(type) {
	case *ast.Ident:
		return x.Name == "log" || x.Name == "slog" || x.Name == "logger"
	case *ast.SelectorExpr:
		return x.Sel.Name == "log" || x.Sel.Name == "Logger" || x.Sel.Name == "logger"
	case *ast.CallExpr:
		id, ok := x.Fun.(*ast.Ident)
		return ok && id.Name == "logger"
	}
	return false
}
