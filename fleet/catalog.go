package fleet

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/bellhop-dev/bellhop/job"
)

// Catalog knows the tasks that may be enqueued, from memory: those given at the start, and those that workers have registered.
// It is safe for concurrent use.
type Catalog struct {
	fleet *Client
	log   *slog.Logger

	mu    sync.RWMutex
	tasks map[string]job.Definition
}

// NewCatalog returns a catalog that knows the given tasks. A nil logger is slog.Default().
func NewCatalog(fleet *Client, log *slog.Logger, known ...job.Definition) *Catalog {
	if log == nil {
		log = slog.Default()
	}
	c := &Catalog{fleet: fleet, log: log, tasks: make(map[string]job.Definition)}
	c.learn(known)
	return c
}

func (c *Catalog) learn(definitions []job.Definition) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range definitions {
		c.tasks[d.Name] = d
	}
}

// Task returns the definition of a task, false if it isn't known.
func (c *Catalog) Task(name string) (job.Definition, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	d, known := c.tasks[name]
	return d, known
}

// Names are the names of all known tasks, sorted.
func (c *Catalog) Names() []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.Sorted(maps.Keys(c.tasks))
}

// Refresh reads the registry.
func (c *Catalog) Refresh(ctx context.Context) error {
	registered, err := c.fleet.Tasks(ctx)
	if err != nil {
		return err
	}
	definitions := make([]job.Definition, len(registered))
	for i, t := range registered {
		definitions[i] = t.Definition
	}
	c.learn(definitions)
	return nil
}

// refreshEvery is how old the catalog's view of the registry may be.
const refreshEvery = 5 * time.Second

// Run refreshes the catalog until ctx ends. While Redis is away, what is known stays known.
func (c *Catalog) Run(ctx context.Context) error {
	ticker := time.NewTicker(refreshEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := c.Refresh(ctx); err != nil && ctx.Err() == nil {
			c.log.Debug("the registry of tasks can't be read, the tasks known stay known", "err", err)
		}
	}
}
