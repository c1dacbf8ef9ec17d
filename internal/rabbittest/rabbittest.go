// Package rabbittest gives tests a real RabbitMQ: a broker of this test binary
// or of one test, and a virtual host for each test. The brokers listen on
// 127.0.0.1 alone, keep their files in a temporary directory, and end with the
// tests, also when those are killed.
package rabbittest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/bellhop-dev/bellhop/internal/redisembed"
	"github.com/bellhop-dev/bellhop/internal/redistest"
)

// startLimit bounds every wait for a broker. On an idle machine one starts
// within 6 s, most of it on one processor.
const startLimit = 2 * time.Minute

// Broker is one rabbitmq-server, with the management plugin.
type Broker struct {
	dir   string
	ports ports
	end   func()

	mu     sync.Mutex
	server *process
	vhosts int
}

type ports struct{ amqp, amqps, http, names, node int }

// shared is the one broker of a test binary: starting one takes seconds, so its tests part it by virtual hosts.
var shared struct {
	start  sync.Once
	broker *Broker
	err    error
}

// Shared returns the broker of this test binary, which starts with the first call. It must not be killed: see Start.
func Shared(t testing.TB) *Broker {
	t.Helper()
	shared.start.Do(func() { shared.broker, shared.err = launch(t) })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.broker
}

// Start runs a broker for this test alone, which it may kill and restart.
func Start(t testing.TB) *Broker {
	t.Helper()
	b, err := launch(t)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.kill()
		b.end()
	})
	return b
}

// launch starts a broker on free ports; on others when somebody took one between the look and the start.
func launch(t testing.TB) (*Broker, error) {
	t.Helper()
	if _, err := findServer(); err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		b, err := newBroker(t)
		if err != nil {
			return nil, err
		}
		if err = b.start(); err == nil {
			return b, nil
		}
		b.end()
		if attempt == 3 || !strings.Contains(err.Error(), "in_use") && !strings.Contains(err.Error(), "already_used") {
			return nil, err
		}
	}
}

// findServer prefers the script that Debian hides behind a wrapper: that one insists on root and on /var/lib/rabbitmq.
func findServer() (string, error) {
	const advice = "these tests run a real RabbitMQ: install it (apt-get install rabbitmq-server, brew install rabbitmq), or run make test"
	if _, err := exec.LookPath("epmd"); err != nil {
		return "", errors.New("no epmd in PATH: " + advice)
	}
	for _, name := range []string{"/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no rabbitmq-server in PATH: " + advice)
}

func newBroker(t testing.TB) (*Broker, error) {
	t.Helper()
	dir, err := os.MkdirTemp("", "bellhop-rabbit-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for RabbitMQ: %w", err)
	}
	b := &Broker{dir: dir}
	for _, port := range []*int{&b.ports.amqp, &b.ports.amqps, &b.ports.http, &b.ports.names, &b.ports.node} {
		if *port, err = redisembed.FreePort(); err != nil {
			return nil, err
		}
	}
	if b.end, err = guard(dir); err != nil {
		return nil, err
	}
	if err := b.writeFiles(redistest.NewTLSFiles(t)); err != nil {
		b.end()
		return nil, err
	}
	return b, nil
}

func (b *Broker) writeFiles(certs *redistest.TLSFiles) error {
	// The authority's files end with the test that made them, a shared broker does not.
	for name, from := range map[string]string{"ca.pem": certs.CA, "cert.pem": certs.Cert, "key.pem": certs.Key} {
		content, err := os.ReadFile(from)
		if err != nil {
			return fmt.Errorf("read a test certificate: %w", err)
		}
		if err := os.WriteFile(b.file(name), content, 0o600); err != nil { //nolint:gosec // below a directory that was just made
			return fmt.Errorf("write a test certificate: %w", err)
		}
	}
	config := []string{
		"listeners.tcp.1 = 127.0.0.1:" + strconv.Itoa(b.ports.amqp),
		"listeners.ssl.1 = 127.0.0.1:" + strconv.Itoa(b.ports.amqps),
		"ssl_options.cacertfile = " + b.file("ca.pem"),
		"ssl_options.certfile = " + b.file("cert.pem"),
		"ssl_options.keyfile = " + b.file("key.pem"),
		"management.tcp.ip = 127.0.0.1",
		"management.tcp.port = " + strconv.Itoa(b.ports.http),
		"collect_statistics_interval = 250", // the list of connections is no newer
		"disk_free_limit.absolute = 1MB",
		"log.console = true",
		"log.console.level = warning",
		"log.file = false",
	}
	if err := os.WriteFile(b.file("rabbitmq.conf"), []byte(strings.Join(config, "\n")+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the configuration of RabbitMQ: %w", err)
	}
	if err := os.WriteFile(b.file("plugins"), []byte("[rabbitmq_management].\n"), 0o600); err != nil {
		return fmt.Errorf("write the plugins of RabbitMQ: %w", err)
	}
	return nil
}

func (b *Broker) file(name string) string { return filepath.Join(b.dir, name) }

// start runs the broker, and the name server of its own that it registers with, and returns once both of its protocols answer.
func (b *Broker) start() error {
	program, err := findServer()
	if err != nil {
		return err
	}
	if _, err := os.Stat(b.file("names.pid")); err != nil {
		if _, err := startProcess(b.dir, "names", nil, "epmd", "-port", strconv.Itoa(b.ports.names), "-address", "127.0.0.1"); err != nil {
			return err
		}
	}
	server, err := startProcess(b.dir, "server", b.environment(), program, "-noinput")
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.server = server
	b.mu.Unlock()
	if err := b.waitReady(server); err != nil {
		server.kill()
		return err
	}
	return nil
}

func (b *Broker) environment() []string {
	return append(os.Environ(),
		"HOME="+b.dir, // the cookie is made there
		"ERL_EPMD_PORT="+strconv.Itoa(b.ports.names),
		"ERL_CRASH_DUMP=/dev/null",
		"RABBITMQ_NODENAME=bellhop-"+strconv.Itoa(b.ports.amqp)+"@localhost",
		"RABBITMQ_DIST_PORT="+strconv.Itoa(b.ports.node),
		"RABBITMQ_CONFIG_FILE="+b.file("rabbitmq.conf"),
		"RABBITMQ_ADVANCED_CONFIG_FILE="+b.file("advanced.config"),
		"RABBITMQ_CONF_ENV_FILE="+b.file("env.conf"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+b.file("plugins"),
		"RABBITMQ_MNESIA_BASE="+b.file("data"),
		"RABBITMQ_LOG_BASE="+b.file("log"),
		"RABBITMQ_PID_FILE="+b.file("rabbitmq.pid.txt"),
		"RABBITMQ_GENERATED_CONFIG_DIR="+b.file("config"),
		"RABBITMQ_SCHEMA_DIR="+b.file("schema"),
		// The script then becomes the broker instead of waiting for it: its process id is the broker's.
		"RABBITMQ_ALLOW_INPUT=1",
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-start_epmd false -kernel inet_dist_use_interface {127,0,0,1} +sbwt none",
	)
}

func (b *Broker) waitReady(server *process) error {
	deadline := time.Now().Add(startLimit)
	for {
		err := b.answers()
		if err == nil {
			return nil
		}
		select {
		case <-server.done:
			return fmt.Errorf("start rabbitmq-server: it exited; it said: %s", server.log())
		case <-time.After(20 * time.Millisecond): // nothing tells of the moment
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("start rabbitmq-server: it does not answer within %s: %w; it said: %s", startLimit, err, server.log())
		}
	}
}

func (b *Broker) answers() error {
	conn, err := amqp.DialConfig(b.url("/"), amqp.Config{Dial: amqp.DefaultDial(2 * time.Second)})
	if err != nil {
		return fmt.Errorf("dial RabbitMQ: %w", err)
	}
	defer conn.Close()                                                      //nolint:errcheck // it was only asked
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second) //nolint:forbidigo // a shared broker belongs to no test
	defer cancel()
	return b.call(ctx, "GET", "/api/whoami", nil)
}

func (b *Broker) url(vhost string) string {
	u := url.URL{Scheme: "amqp", User: url.UserPassword("guest", "guest"), Host: b.Addr(), Path: "/"}
	if vhost != "/" {
		u.Path += vhost
	}
	return u.String()
}

// Addr is where the broker listens, host:port.
func (b *Broker) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(b.ports.amqp)) }

// TLSAddr is where it listens with TLS. CAFile names the authority of its certificate, which is good for 127.0.0.1 alone.
func (b *Broker) TLSAddr() string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(b.ports.amqps))
}

// CAFile is the path of the authority's certificate.
func (b *Broker) CAFile() string { return b.file("ca.pem") }

// Kill ends the broker with SIGKILL, as a crash would.
//
// Before, it has the names of the quorum queues written to disk: the broker does so every three minutes, and starts a queue that
// is younger than that empty, and without a leader, after a crash (seen with 3.10.8).
func (b *Broker) Kill(t testing.TB) {
	t.Helper()
	if err := b.control(t.Context(), "eval", "dets:sync(ra_directory_reverse)."); err != nil {
		t.Fatal(err)
	}
	b.kill()
}

func (b *Broker) kill() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.server != nil {
		b.server.kill()
	}
}

// Stop ends the broker in order, as an operator would.
func (b *Broker) Stop(t testing.TB) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.server.signal(syscall.SIGTERM); err != nil {
		t.Fatalf("stop rabbitmq-server: %v", err)
	}
	select {
	case <-b.server.done:
	case <-time.After(startLimit):
		t.Fatalf("stop rabbitmq-server: it still runs after %s", startLimit)
	}
}

// Restart starts a broker that was killed or stopped, on the same ports and with the same data, and returns once it answers.
func (b *Broker) Restart(t testing.TB) {
	t.Helper()
	if err := b.start(); err != nil {
		t.Fatal(err)
	}
}

// control runs rabbitmqctl.
func (b *Broker) control(ctx context.Context, args ...string) error {
	program, err := findServer()
	if err != nil {
		return err
	}
	if strings.HasPrefix(program, "/usr/lib/rabbitmq/") {
		program = filepath.Join(filepath.Dir(program), "rabbitmqctl")
	} else {
		program = "rabbitmqctl"
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env, cmd.Dir = b.environment(), b.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("rabbitmqctl %s: %w: %s", args[0], err, out)
	}
	return nil
}
