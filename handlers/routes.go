package handlers

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

// Config is how the built-in handlers run. The zero value is useful.
type Config struct {
	HTTP HTTPConfig `mapstructure:"http"`
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	var faults []error
	for _, fault := range c.HTTP.faults() {
		faults = append(faults, fmt.Errorf("http.%w", fault))
	}
	return errors.Join(faults...)
}

// Deps are what the built-in handlers work with beside their configuration.
type Deps struct {
	// Jobs enqueues what a job leads to: the deliveries of webhook:fanout.
	Jobs *job.Client

	// Logger is where log:write writes, and where the others tell what an operator should know. Default: slog.Default().
	Logger *slog.Logger
}

// Routes binds the built-in tasks to their handlers, to be given to a worker.
func Routes(cfg Config, deps Deps) ([]job.Route, error) {
	http, err := NewHTTP(cfg.HTTP)
	if err != nil {
		return nil, err
	}
	log := NewLog(deps.Logger)
	return []job.Route{
		tasks.RequestHTTP.HandledBy(http.Request),
		tasks.WriteLog.HandledBy(log.Write),
	}, nil
}
