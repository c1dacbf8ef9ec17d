package config

import (
	"errors"
	"fmt"
	"net"
	"strconv"

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
