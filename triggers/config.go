package triggers

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"time"
)

var groupName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// The defaults of Config.
const (
	DefaultGroup              = "triggers"
	DefaultCostLimit          = 10_000
	DefaultEvalTimeout        = time.Second
	DefaultMaxExpressionBytes = 4096
	DefaultMaxPayloadBytes    = 4 << 20
)

// Config is what triggers may use. The zero value is useful: every zero is its default.
type Config struct {
	// Group is the durable group of the stream that these rules read as. Processes of one group share its events: give them the
	// same rules. Another program with rules of its own takes a group of its own, and then sees every event too; a new group begins
	// with the oldest event kept. Default "triggers".
	Group string `mapstructure:"group"`
	// CostLimit bounds one evaluation of one expression, in units of CEL: about one a step, and one for ten bytes of text
	// that is searched or copied. Beyond it the match is dead. Default 10,000.
	CostLimit uint64 `mapstructure:"cost_limit"`
	// EvalTimeout bounds one evaluation in time; the cost limit strikes long before on a machine that isn't starved.
	// Default 1s.
	EvalTimeout time.Duration `mapstructure:"eval_timeout"`
	// MaxExpressionBytes is the longest expression. Default 4096, at most 65536.
	MaxExpressionBytes int `mapstructure:"max_expression_bytes"`
	// MaxPayloadBytes is the largest payload that a trigger may make; beyond it the match is dead. Default 4 MiB.
	MaxPayloadBytes int `mapstructure:"max_payload_bytes"`
	// AllowUnknownTasks makes a task that nobody knows at the start a warning: a worker that starts later may bring it. An
	// event that comes before leaves a dead match. Default: it is an error.
	AllowUnknownTasks bool `mapstructure:"allow_unknown_tasks"`
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	c = c.withDefaults()
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	check(groupName.MatchString(c.Group), "group: is %q, a name begins with a letter or digit and goes on with those, '.', '_' and '-', 64 at most", c.Group)
	check(c.CostLimit >= 100, "cost_limit: is %d, at least 100 is needed for the simplest filters", c.CostLimit)
	check(c.EvalTimeout >= time.Millisecond, "eval_timeout: is %v, at least 1ms is needed", c.EvalTimeout)
	check(c.MaxExpressionBytes > 0 && c.MaxExpressionBytes <= 1<<16, "max_expression_bytes: is %d, 1 to 65536 are allowed", c.MaxExpressionBytes)
	check(c.MaxPayloadBytes > 0 && c.MaxPayloadBytes <= 256<<20, "max_payload_bytes: is %d, 1 byte to 256 MiB are allowed", c.MaxPayloadBytes)
	return errors.Join(faults...)
}

// WithDefaults fills what is not set.
func (c Config) WithDefaults() Config { return c.withDefaults() }

func (c Config) withDefaults() Config {
	c.Group = cmp.Or(c.Group, DefaultGroup)
	c.CostLimit = cmp.Or(c.CostLimit, DefaultCostLimit)
	c.EvalTimeout = cmp.Or(c.EvalTimeout, DefaultEvalTimeout)
	c.MaxExpressionBytes = cmp.Or(c.MaxExpressionBytes, DefaultMaxExpressionBytes)
	c.MaxPayloadBytes = cmp.Or(c.MaxPayloadBytes, DefaultMaxPayloadBytes)
	return c
}

// group is the group in the names of jobs, dead matches and fired pairs, which must not collide with those of other groups. The
// default one is not written out.
func (c Config) group() string {
	if c.Group == DefaultGroup {
		return ""
	}
	return c.Group
}
