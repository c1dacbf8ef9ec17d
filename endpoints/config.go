package endpoints

import (
	"cmp"
	"errors"
	"fmt"
	"time"
)

// The defaults of Config.
const (
	DefaultFailures     = 5
	DefaultCooldown     = 30 * time.Second
	DefaultMaxCooldown  = 15 * time.Minute
	DefaultMaxCalls     = 20
	DefaultKeepAttempts = 50
	DefaultKeepFor      = 7 * 24 * time.Hour
)

// Config says when an endpoint is given a rest, and what is remembered. The zero value has the defaults. It should be the same in
// all workers on one Redis.
type Config struct {
	// Failures in a row, of whatever jobs, open an endpoint's circuit: it is not called until Cooldown is over. Default 5.
	Failures int `mapstructure:"failures"`

	// Cooldown is how long an open circuit lets nobody through; then one call probes. Each probe that fails doubles it. Default 30s.
	Cooldown time.Duration `mapstructure:"cooldown"`

	// MaxCooldown is the longest time between two probes. Default 15m.
	MaxCooldown time.Duration `mapstructure:"max_cooldown"`

	// MaxCalls is how many calls of one endpoint may be under way at once, in the whole fleet: a slow one must not hold every slot. Default 20.
	MaxCalls int `mapstructure:"max_calls"`

	// KeepAttempts is how many of an endpoint's last attempts are kept, at most 1,000. Default 50.
	KeepAttempts int `mapstructure:"keep_attempts"`

	// KeepFor is how long they, and all that is known of the endpoint, are kept after its last call. What is switched off stays so
	// until it is switched on. At least 1m; default 7 days.
	KeepFor time.Duration `mapstructure:"keep_for"`
}

// WithDefaults fills what is not set.
func (c Config) WithDefaults() Config {
	c.Failures = cmp.Or(c.Failures, DefaultFailures)
	c.Cooldown = cmp.Or(c.Cooldown, DefaultCooldown)
	c.MaxCooldown = cmp.Or(c.MaxCooldown, max(DefaultMaxCooldown, c.Cooldown))
	c.MaxCalls = cmp.Or(c.MaxCalls, DefaultMaxCalls)
	c.KeepAttempts = cmp.Or(c.KeepAttempts, DefaultKeepAttempts)
	c.KeepFor = cmp.Or(c.KeepFor, DefaultKeepFor)
	return c
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	c = c.WithDefaults()
	var faults []error
	if c.Failures < 1 {
		faults = append(faults, fmt.Errorf("failures: is %d, at least 1 is needed", c.Failures))
	}
	if c.Cooldown < time.Millisecond {
		faults = append(faults, fmt.Errorf("cooldown: is %v, at least 1ms is needed", c.Cooldown))
	}
	if c.MaxCooldown < c.Cooldown {
		faults = append(faults, fmt.Errorf("max_cooldown: is %v, shorter than cooldown, which is %v", c.MaxCooldown, c.Cooldown))
	}
	if c.MaxCalls < 1 {
		faults = append(faults, fmt.Errorf("max_calls: is %d, at least 1 is needed", c.MaxCalls))
	}
	if c.KeepAttempts < 1 || c.KeepAttempts > 1000 {
		faults = append(faults, fmt.Errorf("keep_attempts: is %d, 1 to 1000 are allowed", c.KeepAttempts))
	}
	if c.KeepFor < time.Minute {
		faults = append(faults, fmt.Errorf("keep_for: is %v, at least 1m is needed", c.KeepFor))
	}
	return errors.Join(faults...)
}
