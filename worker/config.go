package worker

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/bellhop-dev/bellhop/internal/suggest"
	"github.com/bellhop-dev/bellhop/internal/wire"
)

// Engines that take jobs from Redis and run them.
const (
	EngineBellhop = "bellhop" // our own pool: batches, waits instead of polling, exact times
	EngineAsynq   = "asynq"   // asynq.Server as it is
)

var engines = []string{EngineBellhop, EngineAsynq}

// Config says what a worker serves and how. Its zero value works.
type Config struct {
	// Engine takes the jobs from Redis. Default: bellhop.
	Engine string `mapstructure:"engine"`

	// Concurrency is how many jobs run at once. Default: 10.
	Concurrency int `mapstructure:"concurrency"`

	// Queues to serve. Default: "default" alone.
	Queues []Queue `mapstructure:"queues"`

	// StrictPriority serves a queue only while all of greater weight are empty; else the weights are shares. Default: false.
	StrictPriority bool `mapstructure:"strict_priority"`

	// Grace is how long running jobs may go on once the worker is told to stop; then they are handed back to be run by
	// another, without spending a retry. Default: 25s, below the 30s after which orchestrators kill.
	Grace time.Duration `mapstructure:"grace"`

	// Retry is the wait before the next attempt of tasks that don't say their own.
	Retry Retry `mapstructure:"retry"`

	// MaxCrashes is how often the process may die while a job runs, until the job is quarantined: archived, with the reason.
	// The last of them must be its own: a job that has one left never runs beside another such job. Crashes spend no
	// retries. Default: 3.
	MaxCrashes int `mapstructure:"max_crashes"`

	// Burst stops the worker once its queues are drained: nothing pending, running or waiting for a retry. Jobs
	// scheduled for later and paused queues are left.
	Burst bool `mapstructure:"burst"`

	// Logger is where the worker tells what happens. Default: slog.Default().
	Logger *slog.Logger `mapstructure:"-"`
}

// Queue is a queue to serve.
type Queue struct {
	Name string `mapstructure:"name"`

	// Weight is the queue's share of the fetches. Default: 1.
	Weight int `mapstructure:"weight"`
}

// Retry doubles the wait before each next attempt, with jitter.
type Retry struct {
	// First is the wait after the first failure. Default: 15s.
	First time.Duration `mapstructure:"first"`

	// Max is the longest wait. Default: 24h, which spreads the default 25 retries over two weeks.
	Max time.Duration `mapstructure:"max"`
}

// Defaults of Config.
const (
	DefaultConcurrency = 10
	DefaultQueue       = "default"
	DefaultGrace       = 25 * time.Second
	DefaultMaxCrashes  = 3
	DefaultRetryFirst  = 15 * time.Second
	DefaultRetryMax    = 24 * time.Hour
)

// WithDefaults fills what is not set.
func (c Config) WithDefaults() Config {
	if c.Engine == "" {
		c.Engine = EngineBellhop
	}
	if c.Concurrency == 0 {
		c.Concurrency = DefaultConcurrency
	}
	if len(c.Queues) == 0 {
		c.Queues = []Queue{{Name: DefaultQueue}}
	}
	c.Queues = slices.Clone(c.Queues)
	for i := range c.Queues {
		c.Queues[i].Weight = cmp.Or(c.Queues[i].Weight, 1)
	}
	if c.Grace == 0 {
		c.Grace = DefaultGrace
	}
	if c.MaxCrashes == 0 {
		c.MaxCrashes = DefaultMaxCrashes
	}
	if c.Retry.First == 0 {
		c.Retry.First = DefaultRetryFirst
	}
	if c.Retry.Max == 0 {
		c.Retry.Max = max(DefaultRetryMax, c.Retry.First)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	c = c.WithDefaults()
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	if !slices.Contains(engines, c.Engine) {
		fault("engine: %q is unknown%s; the engines are %q", c.Engine, suggest.DidYouMean(c.Engine, engines), engines)
	}
	if c.Concurrency < 1 || c.Concurrency > maxConcurrency {
		fault("concurrency: %d, it must be between 1 and %d", c.Concurrency, maxConcurrency)
	}
	seen := make(map[string]bool)
	for i, q := range c.Queues {
		if err := wire.CheckQueue(q.Name); err != nil {
			fault("queues[%d]: %w", i, err)
		}
		if q.Weight < 1 {
			fault("queues[%d] (%s): weight is %d, it must be at least 1", i, q.Name, q.Weight)
		}
		if seen[q.Name] {
			fault("queues[%d]: %s is listed twice", i, q.Name)
		}
		seen[q.Name] = true
	}
	if c.Grace < 0 {
		fault("grace: %v, it must not be negative", c.Grace)
	}
	if c.MaxCrashes < 1 {
		fault("max_crashes: %d, it must be at least 1", c.MaxCrashes)
	}
	if c.Retry.First < 0 || c.Retry.Max < c.Retry.First {
		fault("retry: first %v and max %v, they must be positive and max not below first", c.Retry.First, c.Retry.Max)
	}
	return errors.Join(faults...)
}

const maxConcurrency = 100_000

func (c Config) weights() map[string]int {
	weights := make(map[string]int, len(c.Queues))
	for _, q := range c.Queues {
		weights[q.Name] = q.Weight
	}
	return weights
}

// QueueNames are the names of the queues served.
func (c Config) QueueNames() []string {
	names := make([]string, len(c.Queues))
	for i, q := range c.Queues {
		names[i] = q.Name
	}
	return names
}
