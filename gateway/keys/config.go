package keys

import (
	"cmp"
	"errors"
	"fmt"
	"time"
)

// The defaults of Config.
const (
	DefaultRefresh = 2 * time.Second
	DefaultTrust   = 10 * time.Second
)

// Config is how long keys are believed. The zero value is useful: every zero is its default.
type Config struct {
	// Refresh is the time until a revoked key is refused everywhere. A process that serves requests asks Redis twice in that time
	// whether the keys have changed. Default 2s, 100ms to 1m.
	Refresh time.Duration `mapstructure:"refresh"`
	// Trust is how long the keys are believed while Redis does not answer; then nobody is let in until it does.
	// Default 10s, at least Refresh.
	Trust time.Duration `mapstructure:"trust"`
}

// WithDefaults returns the settings with a default in place of each zero.
func (c Config) WithDefaults() Config {
	c.Refresh = cmp.Or(c.Refresh, DefaultRefresh)
	c.Trust = cmp.Or(c.Trust, max(DefaultTrust, c.Refresh))
	return c
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	c = c.WithDefaults()
	var faults []error
	if c.Refresh < 100*time.Millisecond || c.Refresh > time.Minute {
		faults = append(faults, fmt.Errorf("refresh: is %v, 100ms to 1m are allowed", c.Refresh))
	}
	if c.Trust < c.Refresh || c.Trust > 10*time.Minute {
		faults = append(faults, fmt.Errorf("trust: is %v, refresh (%v) to 10m are allowed", c.Trust, c.Refresh))
	}
	return errors.Join(faults...)
}
