// Package redisembed runs a Redis of our own beside us: what `worker --dev` and
// tests use when nobody has started one.
//
// It prefers a redis-server or valkey-server found in PATH, run as a child in a
// temporary directory, and falls back to a server inside this process. Neither
// keeps anything: when the instance is closed, its data is gone.
package redisembed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// DefaultAddr is where Redis is expected when nothing else is said.
const DefaultAddr = "127.0.0.1:6379"

// startLimit bounds how long a child may take to answer. It takes some 20 ms;
// the rest is for machines under load.
const startLimit = 15 * time.Second

// Options say which Redis to start. The zero value starts the best there is.
type Options struct {
	// Addr is the wanted host:port, default 127.0.0.1:6379. When it is taken,
	// a free port of the same host is used; port 0 always picks a free one.
	Addr string
	// ServerOnly refuses to fall back to the server inside this process.
	ServerOnly bool
	// InProcess does not look for a server program.
	InProcess bool
	// Logger is told why a found server was not used. Default slog.Default().
	Logger *slog.Logger
}

// Instance is a running Redis that ends with Close.
type Instance struct {
	addr  string
	kind  string
	close func() error
	once  sync.Once
	err   error
}

// Start runs a Redis and returns once it answers. ctx bounds only the start:
// the instance lives until Close or the end of this process.
func Start(ctx context.Context, opts Options) (*Instance, error) {
	if opts.ServerOnly && opts.InProcess {
		return nil, errors.New("start an embedded Redis: ServerOnly and InProcess exclude each other; set one of them")
	}
	host, port, err := splitAddr(opts.Addr)
	if err != nil {
		return nil, err
	}
	if opts.InProcess {
		return startInProcess(host, port)
	}

	program, found := FindServer()
	if !found {
		if opts.ServerOnly {
			return nil, errors.New("start an embedded Redis: neither redis-server nor valkey-server is in PATH; install one (apt-get install redis-server)")
		}
		return startInProcess(host, port)
	}
	in, err := startServer(ctx, program, host, port)
	if err != nil && !opts.ServerOnly && ctx.Err() == nil {
		logger(opts.Logger).Warn("the Redis server found does not start; using the one inside this process", "program", program, "err", err)
		return startInProcess(host, port)
	}
	return in, err
}

// URL is the address to give to clients: redis://127.0.0.1:6379/0.
func (in *Instance) URL() string { return "redis://" + in.addr + "/0" }

// Addr is the host:port it listens on.
func (in *Instance) Addr() string { return in.addr }

// Kind tells what runs: "redis-server 7.0.15", "valkey-server 8.0.1" or "in-process".
func (in *Instance) Kind() string { return in.kind }

// Close ends the instance; all it held is gone. Further calls do nothing.
func (in *Instance) Close() error {
	in.once.Do(func() { in.err = in.close() })
	return in.err
}

func splitAddr(addr string) (host, port string, err error) {
	if addr == "" {
		addr = DefaultAddr
	}
	host, port, err = net.SplitHostPort(addr)
	if err != nil {
		return "", "", fmt.Errorf("address of the embedded Redis: %w; write host:port, such as %s", err, DefaultAddr)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n > 65535 {
		return "", "", fmt.Errorf("address of the embedded Redis: port %q is not a number from 0 to 65535", port)
	}
	if host == "" {
		host = "127.0.0.1" // never all interfaces: it has no password
	}
	return host, port, nil
}

// startInProcess serves from this process, on the wanted port or a free one.
func startInProcess(host, port string) (*Instance, error) {
	mini := miniredis.NewMiniRedis()
	// Without this, TTLs stand still. Every access first ages all TTLs by the
	// time passed since the last one, so a key never expires early.
	mini.ClockTTL(true)
	err := mini.StartAddr(net.JoinHostPort(host, port))
	if err != nil && port != "0" {
		err = mini.StartAddr(net.JoinHostPort(host, "0"))
	}
	if err != nil {
		return nil, fmt.Errorf("start Redis inside this process: %w", err)
	}
	return &Instance{
		addr:  mini.Addr(),
		kind:  "in-process",
		close: func() error { mini.Close(); return nil },
	}, nil
}

// startServer runs program as a child. A port that is taken between the look
// and the start makes it exit, so a few ports are tried.
func startServer(ctx context.Context, program, host, port string) (*Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	dir, err := os.MkdirTemp("", "bellhop-redis-")
	if err != nil {
		return nil, fmt.Errorf("directory for the embedded Redis: %w", err)
	}
	for range 5 {
		if port == "0" || !portIsFree(net.JoinHostPort(host, port)) {
			free, err := FreePort()
			if err != nil {
				_ = os.RemoveAll(dir)
				return nil, err
			}
			port = strconv.Itoa(free)
		}
		var p *Process
		if p, err = StartProcess(ctx, program, dir, serverConfig(host, port)); err == nil {
			return &Instance{
				addr: net.JoinHostPort(host, port),
				kind: kindOf(ctx, program),
				close: func() error {
					p.Kill()
					return os.RemoveAll(dir)
				},
			}, nil
		}
		if ctx.Err() != nil || portIsFree(net.JoinHostPort(host, port)) {
			break // the port was not the reason
		}
		_ = os.Remove(configFile(dir)) // it names the taken port
		port = "0"
	}
	_ = os.RemoveAll(dir)
	return nil, err
}

// serverConfig keeps nothing on disk and refuses writes when memory is full,
// instead of dropping jobs.
func serverConfig(host, port string) []string {
	return []string{
		"bind " + host,
		"port " + port,
		`save ""`,
		"appendonly no",
		"maxmemory-policy noeviction",
	}
}

var versionLine = regexp.MustCompile(`^(Redis|Valkey) server v=(\S+)`)

// kindOf names program and version: distributions install valkey under the name
// redis-server too, so the server is asked what it is.
func kindOf(ctx context.Context, program string) string {
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	if m := versionLine.FindSubmatch(out); err == nil && m != nil {
		return strings.ToLower(string(m[1])) + "-server " + string(m[2])
	}
	return filepath.Base(program)
}

func logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.Default()
	}
	return l
}
