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

// Routes binds the built-in tasks to their handlers, to be given to a worker. A nil logger is slog.Default().
func Routes(cfg Config, logger *slog.Logger) ([]job.Route, error) {
	http, err := NewHTTP(cfg.HTTP)
	if err != nil {
		return nil, err
	}
	log := NewLog(logger)
	return []job.Route{
		tasks.RequestHTTP.HandledBy(http.Request),
		tasks.WriteLog.HandledBy(log.Write),
	}, nil
}
