package config

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/sources/rabbitmq"
	"github.com/bellhop-dev/bellhop/triggers"
)

// Triggers says where the rules are and what they may use.
type Triggers struct {
	// Files hold the rules, in YAML. Relative names are looked for in the working directory. Default: none.
	Files []string `mapstructure:"files"`

	triggers.Config `mapstructure:",squash"`
}

// WithDefaults fills what is not set.
func (t Triggers) WithDefaults() Triggers {
	t.Config = t.Config.WithDefaults()
	return t
}

// Validate reports every fault at once.
func (t Triggers) Validate() error {
	faults := []error{t.Config.Validate()}
	seen := make(map[string]bool)
	for i, file := range t.Files {
		if file == "" {
			faults = append(faults, fmt.Errorf("files[%d]: is empty, name a file or remove it", i))
		} else if seen[file] {
			faults = append(faults, fmt.Errorf("files[%d]: %s is listed twice", i, file))
		}
		seen[file] = true
	}
	return errors.Join(faults...)
}

// Durable says when a job or an event that this process stores is acknowledged: once replicas have it too. A failover then loses none.
type Durable struct {
	// Replicas that must have it; it does not work in a Cluster. Default 0: the master's word is enough.
	Replicas int `mapstructure:"replicas"`

	// Within is how long they are waited for; then the call fails, though the job or event is stored. Default 1s.
	Within time.Duration `mapstructure:"within"`
}

// WithDefaults fills what is not set.
func (d Durable) WithDefaults() Durable {
	d.Within = cmp.Or(d.Within, time.Second)
	return d
}

// Validate reports every fault at once.
func (d Durable) Validate() error {
	d = d.WithDefaults()
	var faults []error
	if d.Replicas < 0 {
		faults = append(faults, fmt.Errorf("replicas: is %d, name at least one, or 0 to leave it off", d.Replicas))
	}
	if d.Within < time.Millisecond {
		faults = append(faults, fmt.Errorf("within: is %v, at least 1ms is needed", d.Within))
	}
	return errors.Join(faults...)
}

// Sources are where workers take events from, beside what the gateway brings.
type Sources struct {
	RabbitMQ RabbitMQ `mapstructure:"rabbitmq"`
}

// RabbitMQ are the queues to take events from.
type RabbitMQ []rabbitmq.Config

// WithDefaults fills what is not set.
func (r RabbitMQ) WithDefaults() RabbitMQ {
	filled := slices.Clone(r)
	for i := range filled {
		filled[i] = filled[i].WithDefaults()
	}
	return filled
}

// Validate reports every fault at once.
func (r RabbitMQ) Validate() error {
	var faults []error
	names := make(map[string]int)
	for i, c := range r {
		for _, fault := range split(c.Validate()) {
			faults = append(faults, fmt.Errorf("rabbitmq[%d].%w", i, fault))
		}
		name := c.WithDefaults().Name
		if first, taken := names[name]; taken {
			faults = append(faults, fmt.Errorf("rabbitmq[%d].name: rabbitmq[%d] is %q too; give each its own", i, first, name))
		} else {
			names[name] = i
		}
	}
	return errors.Join(faults...)
}

// EventsConfig is Events with the durable mode in them.
func (c Config) EventsConfig() events.Config {
	e := c.Events
	e.Replicas, e.ReplicasWithin = c.Durable.Replicas, c.Durable.Within
	return e
}

// HTTP is the worker's own small server, for the orchestrator: /healthz and /readyz.
type HTTP struct {
	// Addr to listen on, host:port. It is not meant for the public. Default "": off.
	Addr string `mapstructure:"addr"`
}

// WithDefaults changes nothing: the default is off.
func (h HTTP) WithDefaults() HTTP { return h }

// Validate says whether one could listen on Addr.
func (h HTTP) Validate() error {
	if h.Addr == "" {
		return nil
	}
	_, port, err := net.SplitHostPort(h.Addr)
	if err != nil {
		return fmt.Errorf("addr: %q is no address, give host:port such as 127.0.0.1:8080, or :8080 for all interfaces", h.Addr)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("addr: %q has no port from 0 to 65535 behind its last colon", h.Addr)
	}
	return nil
}
