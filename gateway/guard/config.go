package guard

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"
	"time"
)

// The defaults of Config.
const (
	DefaultRate                     = 1000
	DefaultAddressRate              = 1000
	DefaultFailureRate              = 1
	DefaultMaxBodyBytes             = 4 << 20
	DefaultMaxBodiesBytes           = 256 << 20
	DefaultMaxHeaderBytes           = 32 << 10
	DefaultMaxConnections           = 10_000
	DefaultMaxConnectionsPerAddress = 1_000
	DefaultReadHeaderTimeout        = 5 * time.Second
	DefaultReadTimeout              = 30 * time.Second
	DefaultWriteTimeout             = 60 * time.Second
	DefaultIdleTimeout              = 75 * time.Second
)

// Config is what a stranger may take up. The zero value is useful: every zero is its default. Rates are those of the whole
// fleet; all gateways on one Redis should run with the same values.
type Config struct {
	// TrustedProxies are the addresses and networks ("10.0.0.0/8", "::1") whose X-Forwarded-For is believed. Default none: the
	// client is the peer of the connection.
	TrustedProxies []string `mapstructure:"trusted_proxies"`

	// Rate is how many requests a second one API key may make, where the key does not say. Default 1000; -1: no limit.
	Rate float64 `mapstructure:"rate"`
	// Burst is how many requests a key may make at once after a rest, in seconds of its rate. Default 2s.
	Burst time.Duration `mapstructure:"burst"`
	// AddressRate is how many requests a second one client address may make that show no valid key, an IPv6 /64 being one
	// address. Default 1000; -1: no limit.
	AddressRate float64 `mapstructure:"address_rate"`
	// AddressBurst is how many requests an address may make at once after a rest, in seconds of its rate. Default 2s.
	AddressBurst time.Duration `mapstructure:"address_burst"`
	// FailureRate is how many wrong keys a second one client address may show, after 20 at once. Default 1; -1: no limit.
	FailureRate float64 `mapstructure:"failure_rate"`

	// MaxBodyBytes is the largest request body accepted, unpacked if it came as gzip. Default 4 MiB.
	MaxBodyBytes int64 `mapstructure:"max_body_bytes"`
	// MaxBodiesBytes is how much of the bodies of all requests at work is held at once; the first 64 KiB of each are counted apart, and have
	// as much again. Beyond it a body is answered with 503: thousands that send theirs slowly, with no key, do not take up all memory.
	// Default 256 MiB.
	MaxBodiesBytes int64 `mapstructure:"max_bodies_bytes"`
	// MaxHeaderBytes is the largest request line with headers accepted; the server allows 4 KiB more. Default 32 KiB.
	MaxHeaderBytes int `mapstructure:"max_header_bytes"`

	// MaxConnections is how many connections are held open. Beyond, the one that has waited longest without a request makes
	// room; where all are at work, the new one is closed. Default 10,000.
	MaxConnections int `mapstructure:"max_connections"`
	// MaxConnectionsPerAddress is how many of them one peer may hold, by the same rule; trusted proxies may hold all. Default 1,000.
	MaxConnectionsPerAddress int `mapstructure:"max_connections_per_address"`

	// ReadHeaderTimeout is the time a client has to send a request's headers. Default 5s.
	ReadHeaderTimeout time.Duration `mapstructure:"read_header_timeout"`
	// ReadTimeout is the time a client has to send the whole request. Default 30s.
	ReadTimeout time.Duration `mapstructure:"read_timeout"`
	// WriteTimeout is the time from the end of a request's headers to the end of its answer; streams and answers that wait set
	// their own with Unhurried. Default 60s.
	WriteTimeout time.Duration `mapstructure:"write_timeout"`
	// IdleTimeout is how long a connection is kept for the next request. Default 75s.
	IdleTimeout time.Duration `mapstructure:"idle_timeout"`

	// CORSOrigins are the origins, such as https://app.example.com, whose scripts may call the gateway from a browser.
	// Default none.
	CORSOrigins []string `mapstructure:"cors_origins"`
}

// WithDefaults returns the settings with a default in place of each zero.
func (c Config) WithDefaults() Config {
	c.Rate = cmp.Or(c.Rate, DefaultRate)
	c.Burst = cmp.Or(c.Burst, 2*time.Second)
	c.AddressRate = cmp.Or(c.AddressRate, DefaultAddressRate)
	c.AddressBurst = cmp.Or(c.AddressBurst, 2*time.Second)
	c.FailureRate = cmp.Or(c.FailureRate, DefaultFailureRate)
	c.MaxBodyBytes = cmp.Or(c.MaxBodyBytes, DefaultMaxBodyBytes)
	c.MaxBodiesBytes = cmp.Or(c.MaxBodiesBytes, max(DefaultMaxBodiesBytes, c.MaxBodyBytes))
	c.MaxHeaderBytes = cmp.Or(c.MaxHeaderBytes, DefaultMaxHeaderBytes)
	c.MaxConnections = cmp.Or(c.MaxConnections, DefaultMaxConnections)
	c.MaxConnectionsPerAddress = cmp.Or(c.MaxConnectionsPerAddress, DefaultMaxConnectionsPerAddress)
	c.ReadHeaderTimeout = cmp.Or(c.ReadHeaderTimeout, DefaultReadHeaderTimeout)
	c.ReadTimeout = cmp.Or(c.ReadTimeout, DefaultReadTimeout)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, DefaultWriteTimeout)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, DefaultIdleTimeout)
	return c
}

// maxRate is where counting would be no limit any more.
const maxRate = 1_000_000

// Validate reports every fault at once.
func (c Config) Validate() error {
	c = c.WithDefaults()
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	for i, text := range c.TrustedProxies {
		_, err := parsePrefix(text)
		check(err == nil, "trusted_proxies: item %d, %q, is no address and no network: write 10.0.0.0/8 or ::1", i+1, text)
	}
	rate := func(name string, r float64) {
		check(r == -1 || r > 0 && r <= maxRate && !math.IsNaN(r), "%s: is %v, up to %d requests a second are allowed, or -1 for no limit", name, r, maxRate)
	}
	rate("rate", c.Rate)
	rate("address_rate", c.AddressRate)
	rate("failure_rate", c.FailureRate)
	within := func(name string, d, least, most time.Duration) {
		check(d >= least && d <= most, "%s: is %v, %v to %v are allowed", name, d, least, most)
	}
	within("burst", c.Burst, 100*time.Millisecond, time.Hour)
	within("address_burst", c.AddressBurst, 100*time.Millisecond, time.Hour)
	check(c.MaxBodyBytes >= 1024 && c.MaxBodyBytes <= 256<<20, "max_body_bytes: is %d, 1 KiB to 256 MiB are allowed", c.MaxBodyBytes)
	check(c.MaxBodiesBytes >= c.MaxBodyBytes, "max_bodies_bytes: is %d, at least max_body_bytes (%d) is needed", c.MaxBodiesBytes, c.MaxBodyBytes)
	check(c.MaxHeaderBytes >= 1024 && c.MaxHeaderBytes <= 1<<20, "max_header_bytes: is %d, 1 KiB to 1 MiB are allowed", c.MaxHeaderBytes)
	check(c.MaxConnections > 0, "max_connections: is %d, must be positive", c.MaxConnections)
	check(c.MaxConnectionsPerAddress > 0, "max_connections_per_address: is %d, must be positive", c.MaxConnectionsPerAddress)
	within("read_header_timeout", c.ReadHeaderTimeout, 100*time.Millisecond, time.Minute)
	within("read_timeout", c.ReadTimeout, 100*time.Millisecond, time.Hour)
	within("write_timeout", c.WriteTimeout, 100*time.Millisecond, time.Hour)
	within("idle_timeout", c.IdleTimeout, 100*time.Millisecond, time.Hour)
	for i, origin := range c.CORSOrigins {
		check(isOrigin(origin), "cors_origins: item %d, %q, is no origin: write https://app.example.com, without a path or *", i+1, origin)
	}
	return errors.Join(faults...)
}

func isOrigin(text string) bool {
	u, err := url.Parse(text)
	return err == nil && slices.Contains([]string{"http", "https"}, u.Scheme) && u.Host != "" && u.Scheme+"://"+u.Host == text
}
