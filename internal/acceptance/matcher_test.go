package acceptance_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/config"
	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/handlers"
	"github.com/bellhop-dev/bellhop/internal/redisconn"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/triggers"
	"github.com/bellhop-dev/bellhop/worker"
)

// roleMatcher is a worker process, wired of the same parts as cmd/worker, that kills itself with SIGKILL between the
// moment when all jobs of a batch of events are in Redis and their acknowledgement. Its argument is the configuration.
const roleMatcher = "matcher"

// killAt is the event, counted as the matcher sees them, whose batch is its last.
const killAt = 45

// unusedQueue is the one that the matcher serves: it runs no job of the rules', so that none is cut short by its death.
const unusedQueue = "unused"

func runMatcher(file string) int {
	if err := match(file); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func match(file string) error {
	ctx := context.Background()
	loaded, err := config.Load(config.Options{File: file})
	if err != nil {
		return err
	}
	cfg := loaded.Config
	rdb, err := redisconn.Open(cfg.Redis)
	if err != nil {
		return err
	}
	routes, err := handlers.Routes(handlers.Config{HTTP: cfg.Handlers.HTTP}, handlers.Deps{})
	if err != nil {
		return err
	}
	cfg.Worker.Queues = []worker.Queue{{Name: unusedQueue, Weight: 1}}
	w, err := worker.New(rdb, cfg.Worker, routes...)
	if err != nil {
		return err
	}
	feed, err := newDoomedFeed(rdb, cfg, routes)
	if err != nil {
		return err
	}
	w.Feed("triggers", feed)
	return errors.Join(errors.New("the matcher has ended by itself"), w.Run(ctx))
}

// doomedFeed is triggers.Feed with a death in it.
type doomedFeed struct {
	runner   *triggers.Runner
	consumer *events.Consumer
	seen     int
}

func newDoomedFeed(rdb redis.UniversalClient, cfg config.Config, routes []job.Route) (*doomedFeed, error) {
	definitions := make([]job.Definition, len(routes))
	for i, r := range routes {
		definitions[i] = r.Definition
	}
	rules, err := triggers.Load(cfg.Triggers.Files...)
	if err != nil {
		return nil, err
	}
	set, err := triggers.Compile(rules, triggers.TaskList(definitions...), cfg.Triggers.Config)
	if err != nil {
		return nil, err
	}
	stream, err := events.NewClient(rdb, cfg.Events)
	if err != nil {
		return nil, err
	}
	jobs := job.NewClient(rdb)
	f := &doomedFeed{runner: triggers.NewRunner(set, triggers.Deps{Jobs: jobs, Dead: stream, Fired: jobs})}
	f.consumer, err = stream.NewConsumer(triggers.DefaultGroup, f.handle, events.ConsumerOptions{OnTrim: f.runner.OnTrim})
	return f, err
}

func (f *doomedFeed) Run(ctx context.Context) error { return f.consumer.Run(ctx) }

func (f *doomedFeed) Drained(context.Context) (bool, error) { return false, nil }

// lastWords are what the matcher says before it dies.
type lastWords struct {
	Acknowledged int      `json:"acknowledged"` // events of earlier batches
	Enqueued     []string `json:"enqueued"`     // ids of the events whose jobs are in Redis, and which are not acknowledged
}

func (f *doomedFeed) handle(ctx context.Context, batch []events.Delivery) []error {
	outcomes := f.runner.Handle(ctx, batch)
	words := lastWords{Acknowledged: f.seen}
	f.seen += len(batch)
	if f.seen < killAt {
		return outcomes
	}
	for i, d := range batch {
		if outcomes[i] != nil {
			fmt.Fprintln(os.Stderr, "the batch to die with failed:", outcomes[i])
			os.Exit(1)
		}
		words.Enqueued = append(words.Enqueued, d.Event.ID)
	}
	_ = json.NewEncoder(os.Stdout).Encode(words)
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal is on its way
}
