package handlers

import (
	"cmp"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/bellhop-dev/bellhop/job"
)

// The defaults of HTTPConfig.
const (
	DefaultHTTPTimeout      = 30 * time.Second
	DefaultMaxResponseBytes = 64 << 10
)

// HTTPConfig is how http:request calls. The zero value is useful: every zero is its default.
type HTTPConfig struct {
	// Allow lists what may be called although its address is private, loopback or otherwise not of the public internet: a name
	// ("agents.internal", "*.internal" for all below it), an address ("127.0.0.1", "::1") or a network ("10.0.0.0/8"); a name or
	// an address may end with a port ("127.0.0.1:8080", "[::1]:8080") and then holds for that one. A name is trusted whatever it
	// resolves to. Default: none.
	Allow []string `mapstructure:"allow"`

	// MaxResponseBytes is how much of a response's body is kept as the job's result; the rest is cut off. Default 64 KiB, at most 1 MiB.
	MaxResponseBytes int `mapstructure:"max_response_bytes"`

	// Timeout bounds one call, from dialling to the body's end, redirects included, where the payload has none. Default 30s.
	Timeout time.Duration `mapstructure:"timeout"`

	// UserAgent is sent where the payload has none. Default "bellhop/" and the version.
	UserAgent string `mapstructure:"user_agent"`
}

// Validate reports every fault at once.
func (c HTTPConfig) Validate() error { return errors.Join(c.faults()...) }

func (c HTTPConfig) faults() []error {
	c = c.WithDefaults()
	_, faults := parseAllow(c.Allow)
	if c.MaxResponseBytes < 1 || c.MaxResponseBytes > job.MaxResultBytes {
		faults = append(faults, fmt.Errorf("max_response_bytes: is %d, 1 to %d are allowed", c.MaxResponseBytes, job.MaxResultBytes))
	}
	if c.Timeout < time.Millisecond {
		faults = append(faults, fmt.Errorf("timeout: is %v, at least 1ms is needed", c.Timeout))
	}
	if !validHeaderValue(c.UserAgent) {
		faults = append(faults, errors.New("user_agent: has control characters, which no header may have"))
	}
	return faults
}

// WithDefaults fills what is not set.
func (c HTTPConfig) WithDefaults() HTTPConfig {
	c.MaxResponseBytes = cmp.Or(c.MaxResponseBytes, DefaultMaxResponseBytes)
	c.Timeout = cmp.Or(c.Timeout, DefaultHTTPTimeout)
	if c.UserAgent == "" {
		c.UserAgent = "bellhop/" + version()
	}
	return c
}

// version is the one of bellhop's module in this binary, whether it is built from its own repository or imported.
func version() string {
	const module = "github.com/bellhop-dev/bellhop"
	found := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Path == module {
			found = info.Main.Version
		}
		for _, dep := range info.Deps {
			if dep.Path == module {
				found = dep.Version
			}
		}
	}
	if found == "" || found == "(devel)" {
		return "devel"
	}
	return found
}
