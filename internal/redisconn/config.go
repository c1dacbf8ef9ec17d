// Package redisconn turns one address into a Redis client: every command takes
// the same URL for a single server, a Sentinel set, a Cluster or a socket. Before
// anything runs, Check tells whether that Redis can be trusted with jobs.
package redisconn

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"
)

// Defaults of Config.
const (
	DefaultURL     = "redis://127.0.0.1:6379/0"
	DefaultWaitFor = 30 * time.Second
)

// Config says where Redis is. The zero value is the default address without
// credentials.
type Config struct {
	// URL is one of
	//
	//	redis://[user:password@]host[:6379][/db]
	//	redis-sentinel://[user:password@]host[:26379],host.../master[/db]
	//	redis-cluster://[user:password@]host[:6379],host...
	//	unix://[user:password@]/path/to.sock[?db=0]
	//
	// with rediss://, rediss-sentinel:// and rediss-cluster:// for TLS. Default
	// redis://127.0.0.1:6379/0.
	URL string `mapstructure:"url"`

	// Username and Password replace those of the URL. PasswordFile names a file
	// that holds the password; it is read anew for each connection, so that a
	// rotated password needs no restart. At most one of Password and PasswordFile.
	Username     string `mapstructure:"username"`
	Password     string `mapstructure:"password"`
	PasswordFile string `mapstructure:"password_file"`

	// CAFile holds the PEM certificates of the authorities to trust, instead of
	// the system's. CertFile and KeyFile are shown to servers that ask for a
	// client certificate. They need a TLS scheme: plain text is never a fallback.
	CAFile   string `mapstructure:"ca_file"`
	CertFile string `mapstructure:"cert_file"`
	KeyFile  string `mapstructure:"key_file"`
	// ServerName is the name to expect in the server's certificate, default the
	// host of the URL.
	ServerName string `mapstructure:"server_name"`

	// PoolSize is how many connections may be open, for each node. Default: ten
	// for each CPU.
	PoolSize int `mapstructure:"pool_size"`

	// WaitFor is how long a start waits for a Redis that cannot be reached yet.
	// Default 30s; negative does not wait.
	WaitFor time.Duration `mapstructure:"wait_for"`

	// AllowEviction accepts a Redis that drops keys when its memory is full.
	// Jobs are then lost without a trace.
	AllowEviction bool `mapstructure:"allow_eviction"`
}

// Validate reports every fault of the configuration at once. It opens no
// connection; the files named are looked at by Open.
func (c Config) Validate() error {
	target, err := parse(c.url())
	errs := []error{err}
	if c.Password != "" && c.PasswordFile != "" {
		errs = append(errs, errors.New("redis: password and password_file are both set; keep one of them"))
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		errs = append(errs, errors.New("redis: cert_file and key_file need each other; set both"))
	}
	if err == nil && !target.tls && c.usesTLS() {
		errs = append(errs, fmt.Errorf("redis: ca_file, cert_file, key_file or server_name is set, but %s:// is plain text; %s", target.scheme, tlsAdvice(target)))
	}
	if c.PoolSize < 0 {
		errs = append(errs, fmt.Errorf("redis: pool_size is %d; give a positive number, or 0 for the default", c.PoolSize))
	}
	return errors.Join(errs...)
}

// String describes the configuration without its secrets.
func (c Config) String() string { return Redact(c.url()) }

// GoString keeps the password out of %#v.
func (c Config) GoString() string { return "redisconn.Config{" + c.String() + "}" }

// LogValue keeps the password out of logs.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// WithDefaults fills what is not set.
func (c Config) WithDefaults() Config {
	c.URL, c.WaitFor = c.url(), c.waitFor()
	return c
}

func (c Config) url() string {
	if c.URL == "" {
		return DefaultURL
	}
	return c.URL
}

func (c Config) waitFor() time.Duration {
	if c.WaitFor == 0 {
		return DefaultWaitFor
	}
	return c.WaitFor
}

func (c Config) usesTLS() bool {
	return c.CAFile != "" || c.CertFile != "" || c.KeyFile != "" || c.ServerName != ""
}

func tlsAdvice(t target) string {
	if t.mode == modeUnix {
		return "a socket needs no TLS: remove them"
	}
	return "write " + strings.Replace(t.scheme, "redis", "rediss", 1) + "://"
}

func readPassword(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read the Redis password: %w; check password_file", err)
	}
	// Editors and `echo` end files with a newline, which no password means.
	return strings.TrimRight(string(b), "\r\n"), nil
}
