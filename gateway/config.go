package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/bellhop-dev/bellhop/gateway/guard"
	"github.com/bellhop-dev/bellhop/gateway/keys"
)

// Config is how the gateway serves. The zero value is useful: every zero is its default.
type Config struct {
	// Addr is the public address, host:port. Default 127.0.0.1:8080: to face others, say so.
	Addr string `mapstructure:"addr"`
	// PrivateAddr serves /healthz, /readyz, /metrics and /debug/pprof, without a key: keep it away from others. Default 127.0.0.1:8081.
	PrivateAddr string `mapstructure:"private_addr"`
	// CertFile and KeyFile hold the certificate chain and key in PEM, read again when they change. Both or none; default: plain HTTP.
	CertFile string `mapstructure:"cert_file"`
	KeyFile  string `mapstructure:"key_file"`

	// JobRetention is how long a job that was made here is kept after its end, unless its request or task says more. Default 1h.
	JobRetention time.Duration `mapstructure:"job_retention"`
	// MaxWait bounds ?wait= of a job's status. Default 60s.
	MaxWait time.Duration `mapstructure:"max_wait"`
	// MaxBatch is the most jobs or events in one request. Default 500.
	MaxBatch int `mapstructure:"max_batch"`
	// PageSize is how many entries a listing has unless ?limit= asks for another number, up to MaxPageSize. Defaults 50 and 500.
	PageSize    int `mapstructure:"page_size"`
	MaxPageSize int `mapstructure:"max_page_size"`
	// IdempotencyTTL is how long an Idempotency-Key is remembered. Default 24h, at least 1m.
	IdempotencyTTL time.Duration `mapstructure:"idempotency_ttl"`
	// RedisWithin bounds how long one request works with Redis until it is answered with 503. Default 5s, at least 100ms.
	RedisWithin time.Duration `mapstructure:"redis_within"`
	// Grace is how long requests may go on once the process is told to stop. Default 25s.
	Grace time.Duration `mapstructure:"grace"`
	// DrainDelay is how long the process serves on while it tells that it is not ready, so that load balancers notice. It counts into
	// Grace. Default 0: none.
	DrainDelay time.Duration `mapstructure:"drain_delay"`

	// Guard bounds what strangers may take up, Keys is how long API keys are believed.
	Guard guard.Config `mapstructure:"guard"`
	Keys  keys.Config  `mapstructure:"auth"`
}

// The defaults of Config.
const (
	DefaultAddr           = "127.0.0.1:8080"
	DefaultPrivateAddr    = "127.0.0.1:8081"
	DefaultJobRetention   = time.Hour
	DefaultMaxWait        = time.Minute
	DefaultMaxBatch       = 500
	DefaultPageSize       = 50
	DefaultMaxPageSize    = 500
	DefaultIdempotencyTTL = 24 * time.Hour
	DefaultRedisWithin    = 5 * time.Second
	DefaultGrace          = 25 * time.Second
)

// WithDefaults returns the settings with a default in place of each zero.
func (c Config) WithDefaults() Config {
	c.Addr = cmp.Or(c.Addr, DefaultAddr)
	c.PrivateAddr = cmp.Or(c.PrivateAddr, DefaultPrivateAddr)
	c.JobRetention = cmp.Or(c.JobRetention, DefaultJobRetention)
	c.MaxWait = cmp.Or(c.MaxWait, DefaultMaxWait)
	c.MaxBatch = cmp.Or(c.MaxBatch, DefaultMaxBatch)
	c.PageSize = cmp.Or(c.PageSize, DefaultPageSize)
	c.MaxPageSize = cmp.Or(c.MaxPageSize, max(DefaultMaxPageSize, c.PageSize))
	c.IdempotencyTTL = cmp.Or(c.IdempotencyTTL, DefaultIdempotencyTTL)
	c.RedisWithin = cmp.Or(c.RedisWithin, DefaultRedisWithin)
	c.Grace = cmp.Or(c.Grace, DefaultGrace)
	c.Guard, c.Keys = c.Guard.WithDefaults(), c.Keys.WithDefaults()
	return c
}

// maxBatch bounds MaxBatch: a batch is answered in one go, within RedisWithin.
const maxBatch = 10_000

// Validate reports every fault at once.
func (c Config) Validate() error {
	c = c.WithDefaults()
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	atLeast := func(key string, d, least time.Duration) {
		if d < least {
			fault("%s: %v, it must be at least %v", key, d, least)
		}
	}

	address := func(key, addr string) {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			fault("%s: %q is no address, write it such as 127.0.0.1:8080", key, addr)
		}
	}
	address("addr", c.Addr)
	address("private_addr", c.PrivateAddr)
	if (c.CertFile == "") != (c.KeyFile == "") {
		fault("cert_file and key_file go together: set both for TLS, or none")
	}
	atLeast("job_retention", c.JobRetention, time.Second)
	atLeast("max_wait", c.MaxWait, time.Second)
	atLeast("idempotency_ttl", c.IdempotencyTTL, time.Minute)
	atLeast("redis_within", c.RedisWithin, 100*time.Millisecond)
	atLeast("grace", c.Grace, 0)
	atLeast("drain_delay", c.DrainDelay, 0)
	if c.DrainDelay > c.Grace {
		fault("drain_delay: %v, it must not be above grace, which is %v", c.DrainDelay, c.Grace)
	}
	if c.MaxBatch < 1 || c.MaxBatch > maxBatch {
		fault("max_batch: %d, it must be between 1 and %d", c.MaxBatch, maxBatch)
	}
	if c.PageSize < 1 || c.MaxPageSize < c.PageSize || c.MaxPageSize > maxBatch {
		fault("page_size: %d and max_page_size: %d must be at least 1, the latter not below the former nor above %d", c.PageSize, c.MaxPageSize, maxBatch)
	}
	within := func(section string, err error) {
		for _, one := range flatten(err) {
			fault("%s.%w", section, one)
		}
	}
	within("guard", c.Guard.Validate())
	within("auth", c.Keys.Validate())
	return errors.Join(faults...)
}

// flatten takes joined errors apart.
func flatten(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}
