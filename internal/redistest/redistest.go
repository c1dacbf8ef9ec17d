// Package redistest gives every test a Redis of its own: a real redis-server
// child, one inside the process, a Sentinel set or a Cluster. All of them are
// gone when the test ends.
package redistest

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/bellhop-dev/bellhop/internal/redisembed"
)

// startLimit bounds every wait for a server; they answer within some 20 ms.
const startLimit = 30 * time.Second

// New starts a redis-server for this test alone and returns a client of it.
func New(t testing.TB) redis.UniversalClient {
	t.Helper()
	return Start(t).Client()
}

// Embedded returns a client of a Redis inside this process, of the kind that
// `worker --dev` falls back to.
func Embedded(t testing.TB) redis.UniversalClient {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), startLimit)
	defer cancel()
	in, err := redisembed.Start(ctx, redisembed.Options{Addr: "127.0.0.1:0", InProcess: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close() })
	// Under the race detector, on a busy machine, it runs the script of a large batch for seconds.
	return client(t, in.URL()+"?read_timeout=30s", nil)
}

// Each runs fn against a redis-server and against the embedded one, in parallel
// subtests named "redis" and "embedded".
func Each(t *testing.T, fn func(t *testing.T, rdb redis.UniversalClient)) {
	t.Helper()
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		fn(t, New(t))
	})
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		fn(t, Embedded(t))
	})
}

// Server is one redis-server child.
type Server struct {
	t       testing.TB
	program string
	args    []string
	dir     string
	port    int
	busPort int // of a cluster node
	config  []string
	user    *url.Userinfo
	tls     *TLSFiles

	mu     sync.Mutex
	proc   *redisembed.Process
	client redis.UniversalClient
}

// Option changes how Start runs the server.
type Option func(*Server)

// WithConfig adds a line to the server's configuration; an empty value is
// written as "".
func WithConfig(key, value string) Option {
	if value == "" {
		value = `""`
	}
	return func(s *Server) { s.config = append(s.config, key+" "+value) }
}

// WithAOF makes the server keep its data over Kill and Restart.
func WithAOF() Option { return WithConfig("appendonly", "yes") }

// WithPassword asks every client for a password. URL carries it.
func WithPassword(password string) Option {
	return func(s *Server) {
		s.config = append(s.config, "requirepass "+quote(password))
		s.user = url.UserPassword("", password)
	}
}

// WithUser adds an ACL user with rules such as "~bellhop:*" and "+@all". URL and
// Client use it; Admin still is the default user.
func WithUser(name, password string, rules ...string) Option {
	return func(s *Server) {
		line := []string{"user", name, "on", quote(">" + password)}
		s.config = append(s.config, strings.Join(append(line, rules...), " "))
		s.user = url.UserPassword(name, password)
	}
}

// Start runs a redis-server for this test alone: on a free port of 127.0.0.1,
// in a temporary directory, keeping nothing on disk unless the options say so.
func Start(t testing.TB, opts ...Option) *Server {
	t.Helper()
	s := newServer(t)
	s.config = []string{`save ""`, "appendonly no", "maxmemory-policy noeviction"}
	for _, opt := range opts {
		opt(s)
	}
	s.launch()
	return s
}

func newServer(t testing.TB) *Server {
	t.Helper()
	program, found := redisembed.FindServer()
	if !found {
		t.Fatal("these tests run a real Redis: install it: apt-get install redis-server, or run make test")
	}
	// Not t.TempDir: with a long test name its path is too long for a socket.
	dir, err := os.MkdirTemp("", "bellhop-redis-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return &Server{t: t, program: program, dir: dir}
}

// launch starts the server, on another port when somebody took the first one
// between the look and the start.
func (s *Server) launch() {
	s.t.Helper()
	var err error
	for range 5 {
		if s.port, err = redisembed.FreePort(); err != nil {
			break
		}
		if err = s.start(s.listenConfig()); err == nil {
			s.t.Cleanup(s.Kill)
			return
		}
		if !strings.Contains(err.Error(), "in use") {
			break
		}
		_ = os.Remove(filepath.Join(s.dir, "redis.conf"))
	}
	s.t.Fatal(err)
}

func (s *Server) listenConfig() []string {
	lines := []string{"bind 127.0.0.1"}
	if s.tls == nil {
		lines = append(lines, "port "+strconv.Itoa(s.port))
	} else {
		lines = append(lines, "port 0", "tls-port "+strconv.Itoa(s.port))
	}
	return append(lines, s.config...)
}

func (s *Server) start(config []string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.t.Context()), startLimit)
	defer cancel()
	proc, err := redisembed.StartProcess(ctx, s.program, s.dir, config, s.args...)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.proc = proc
	s.mu.Unlock()
	return nil
}

// Addr is the server's host:port.
func (s *Server) Addr() string { return "127.0.0.1:" + strconv.Itoa(s.port) }

// URL is the server's address with the credentials of WithPassword or WithUser.
func (s *Server) URL() string {
	u := url.URL{Scheme: "redis", User: s.user, Host: s.Addr(), Path: "/0"}
	if s.tls != nil {
		u.Scheme = "rediss"
	}
	return u.String()
}

// Socket is the path of the unix socket on which the server listens too.
func (s *Server) Socket() string { return filepath.Join(s.dir, redisembed.SocketName) }

// Dir is the server's directory: its configuration, data and socket.
func (s *Server) Dir() string { return s.dir }

// TLS names the certificates of WithTLS, nil without.
func (s *Server) TLS() *TLSFiles { return s.tls }

// Client returns a client of URL, the same one at every call.
func (s *Server) Client() redis.UniversalClient {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == nil {
		s.client = client(s.t, s.URL(), s.tls)
	}
	return s.client
}

// Admin returns a new client of the all-powerful default user, over the socket.
func (s *Server) Admin() redis.UniversalClient {
	s.t.Helper()
	u := url.URL{Scheme: "unix", Path: s.Socket()}
	if s.user != nil && s.user.Username() == "" {
		u.User = s.user
	}
	return client(s.t, u.String(), nil)
}

// Kill ends the server with SIGKILL, as a crash would.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proc.Kill()
}

// Restart starts a killed server again (a running one is killed first), on the
// same port and in the same directory, and returns once it answers.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	if err := s.start(nil); err != nil {
		s.t.Fatal(err)
	}
}

// Pause freezes the server with SIGSTOP: connections stay open, nothing answers.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.proc.Signal(sig); err != nil {
		s.t.Fatalf("send %s to redis-server: %v", sig, err)
	}
}

// client opens rawURL as production does, and closes it with the test.
func client(t testing.TB, rawURL string, files *TLSFiles) redis.UniversalClient {
	t.Helper()
	opts, err := redis.ParseURL(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	opts.ContextTimeoutEnabled = true
	opts.DisableIdentity = true
	opts.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	if files != nil {
		opts.TLSConfig = files.ClientConfig(t)
	}
	rdb := redis.NewClient(opts)
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// quote writes s as one argument of a Redis configuration line.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}

// eventually waits until ok holds, or fails the test: for states of servers,
// which send no signal when they are reached.
func eventually(t testing.TB, what string, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(startLimit)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(fmt.Errorf("%s: not within %s: %w", what, startLimit, err))
		}
		time.Sleep(5 * time.Millisecond)
	}
}
