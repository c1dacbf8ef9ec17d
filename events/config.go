package events

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"
)

// The defaults of Config.
const (
	DefaultPrefix        = "bellhop:{events}:"
	DefaultDedupeWindow  = 24 * time.Hour
	DefaultRetention     = 24 * time.Hour
	DefaultMaxEvents     = 1_000_000
	DefaultMaxEventBytes = 1 << 20
	DefaultClaimAfter    = 5 * time.Second
	DefaultBatch         = 100
	DefaultMaxDead       = 100_000
)

// Config is how events are stored and handed out. The zero value is useful: every zero is its default. All processes
// on one Redis should run with the same values.
type Config struct {
	// Prefix begins every key of this package. It has a {tag}, so that Redis Cluster keeps them in one slot.
	// Default "bellhop:{events}:".
	Prefix string `mapstructure:"prefix"`
	// DedupeWindow is how long a source and id are remembered: the same event published again meanwhile is stored
	// once. Default 24h, at least 1s.
	DedupeWindow time.Duration `mapstructure:"dedupe_window"`
	// Retention is how long an event that every durable group has acknowledged stays readable on the stream, for
	// replay. Less when the stream nears MaxEvents. Default 24h.
	Retention time.Duration `mapstructure:"retention"`
	// MaxEvents is the cap of the stream. At the cap publishing is refused with ErrFull, unless there are
	// acknowledged events to make room with. Default 1,000,000.
	MaxEvents int64 `mapstructure:"max_events"`
	// MaxEventBytes is the largest event accepted, in bytes of its JSON form. Default 1 MiB.
	MaxEventBytes int `mapstructure:"max_event_bytes"`
	// ClaimAfter is how long a consumer may be silent until its events are claimed by another one of its group.
	// A live consumer renews its hold three times in this time, however long its handler runs. Default 5s,
	// at least 100ms.
	ClaimAfter time.Duration `mapstructure:"claim_after"`
	// Batch is the most events handed to a handler at once. Default 100, at most 10,000.
	Batch int `mapstructure:"batch"`
	// MaxDead is how many dead matches are kept. When they are that many, adding one fails, and the event stays
	// pending: none is dropped. Default 100,000.
	MaxDead int64 `mapstructure:"max_dead"`

	// Replicas is on how many replicas an event must be before its publishing is acknowledged; else ErrNotReplicated. It costs a round
	// trip to the slowest of them, and does not work in a Cluster. Default 0: the master's word is enough.
	Replicas int `mapstructure:"-"`
	// ReplicasWithin is how long they are waited for. Default 1s; keep it below the client's read timeout.
	ReplicasWithin time.Duration `mapstructure:"-"`
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	c = c.WithDefaults()
	var faults []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	open := strings.IndexByte(c.Prefix, '{')
	check(open >= 0 && strings.IndexByte(c.Prefix[open+1:], '}') > 0,
		"prefix: %q has no {tag}: Redis Cluster needs one to keep the keys of one script together", c.Prefix)
	check(c.DedupeWindow >= time.Second, "dedupe_window: is %v, at least 1s is needed", c.DedupeWindow)
	check(c.Retention >= 0, "retention: is %v, a negative time", c.Retention)
	check(c.MaxEvents > 0, "max_events: is %d, must be positive", c.MaxEvents)
	check(c.MaxEventBytes >= 1024, "max_event_bytes: is %d, at least 1024 are needed", c.MaxEventBytes)
	check(c.MaxEventBytes <= 256<<20, "max_event_bytes: is %d, at most 256 MiB are allowed", c.MaxEventBytes)
	check(c.ClaimAfter >= 100*time.Millisecond, "claim_after: is %v, at least 100ms is needed", c.ClaimAfter)
	check(c.Batch > 0 && c.Batch <= 10_000, "batch: is %d, 1 to 10000 are allowed", c.Batch)
	check(c.MaxDead > 0, "max_dead: is %d, must be positive", c.MaxDead)
	check(c.Replicas >= 0, "replicas: is %d, name at least one, or 0 to leave it off", c.Replicas)
	check(c.ReplicasWithin > 0, "replicas_within: is %v, must be positive", c.ReplicasWithin)
	return errors.Join(faults...)
}

// WithDefaults returns the settings with a default in place of each zero.
func (c Config) WithDefaults() Config {
	c.Prefix = cmp.Or(c.Prefix, DefaultPrefix)
	c.DedupeWindow = cmp.Or(c.DedupeWindow, DefaultDedupeWindow)
	c.Retention = cmp.Or(c.Retention, DefaultRetention)
	c.MaxEvents = cmp.Or(c.MaxEvents, DefaultMaxEvents)
	c.MaxEventBytes = cmp.Or(c.MaxEventBytes, DefaultMaxEventBytes)
	c.ClaimAfter = cmp.Or(c.ClaimAfter, DefaultClaimAfter)
	c.Batch = cmp.Or(c.Batch, DefaultBatch)
	c.MaxDead = cmp.Or(c.MaxDead, DefaultMaxDead)
	c.ReplicasWithin = cmp.Or(c.ReplicasWithin, time.Second)
	return c
}
