package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/cmd/internal/gatewayd"
	"github.com/bellhop-dev/bellhop/endpoints"
	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/handlers"
	"github.com/bellhop-dev/bellhop/internal/cli"
	"github.com/bellhop-dev/bellhop/internal/lifecycle"
	"github.com/bellhop-dev/bellhop/internal/redisconn"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/sources/rabbitmq"
	"github.com/bellhop-dev/bellhop/triggers"
	"github.com/bellhop-dev/bellhop/worker"
)

// wired is what has been wired, for the banner of --dev.
type wired struct {
	probes   string   // address
	triggers []string // names of those that fire
	gateway  *gatewayd.Gateway
	key      string // an API key of all scopes
}

// serve wires what a worker process runs and runs it. inCode are triggers beside those of the configured files and of the store; ready is told when all is
// wired.
func (p *process) serve(ctx context.Context, inCode []triggers.Trigger, ready func(wired)) error {
	rdb, err := redisconn.Open(p.cfg.Redis)
	if err != nil {
		return cli.UsageError{Err: err}
	}
	defer rdb.Close() //nolint:errcheck // the process ends
	if !p.dev {       // the Redis of --dev is ours: nothing to be warned of
		if _, err := redisconn.Check(ctx, rdb, p.cfg.Redis, p.log); err != nil {
			return stoppedOr(ctx, err)
		}
	}

	stream, err := events.NewClient(rdb, p.cfg.EventsConfig())
	if err != nil {
		return fmt.Errorf("events: %w", err)
	}
	routes, err := p.routes(rdb, stream)
	if err != nil {
		return cli.UsageError{Err: err}
	}
	w, err := worker.New(rdb, p.cfg.Worker, routes...)
	if err != nil {
		return cli.UsageError{Err: err}
	}
	catalog := fleet.NewCatalog(fleet.New(rdb), p.log, definitions(routes)...)
	if err := catalog.Refresh(ctx); err != nil {
		return stoppedOr(ctx, err)
	}
	rules, feed, err := p.triggers(ctx, rdb, stream, catalog, inCode)
	if err != nil {
		return err
	}
	w.Feed("triggers", feed)
	names := active(rules)
	if len(names) > 0 {
		p.log.Info("triggers active", "triggers", names)
	}

	group := new(lifecycle.Group)
	watch := redisconn.NewWatch(rdb, p.cfg.Redis, p.log)
	if !p.dev {
		group.Add("redis watch", watch.Run)
	}
	group.Add("run", w.Run)
	group.Add("reload", reloadOnHangup(rules))
	group.Add("catalog", catalog.Run)
	var now wired
	now.triggers = names
	if p.cfg.HTTP.Addr != "" {
		probes, err := newProbes(ctx, p.cfg.HTTP.Addr, w, rdb, watch, p.log)
		if p.dev && errors.Is(err, syscall.EADDRINUSE) {
			probes, err = newProbes(ctx, anyAddr, w, rdb, watch, p.log)
		}
		if err != nil {
			return err
		}
		group.AddLast("probes", probes.Run) // who asks while jobs finish is told that the worker drains
		now.probes = probes.listener.Addr().String()
	}
	for _, cfg := range p.cfg.Sources.RabbitMQ {
		source, err := rabbitmq.New(cfg, p.log)
		if err != nil {
			return cli.UsageError{Err: err}
		}
		group.Add("source "+cfg.Name, func(ctx context.Context) error { return source.Run(ctx, stream) })
	}
	if p.dev {
		if err := p.devGateway(ctx, rdb, catalog, group, &now); err != nil {
			return err
		}
	}
	ready(now)
	return group.Run(ctx)
}

// routes are the built-in handlers.
func (p *process) routes(rdb redis.UniversalClient, stream *events.Client) ([]job.Route, error) {
	state, err := endpoints.New(rdb, p.cfg.Handlers.Webhooks.Config)
	if err != nil {
		return nil, err
	}
	return handlers.Routes(p.cfg.Handlers, handlers.Deps{Jobs: p.jobs(rdb), Endpoints: state, Events: stream, Logger: p.log})
}

func (p *process) jobs(rdb redis.UniversalClient) *job.Client {
	return job.NewClient(rdb, job.Durable(p.cfg.Durable.Replicas, p.cfg.Durable.Within))
}

// stoppedOr takes a failure for none if the process was told to stop meanwhile.
func stoppedOr(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

func definitions(routes []job.Route) []job.Definition {
	list := make([]job.Definition, len(routes))
	for i, r := range routes {
		list[i] = r.Definition
	}
	return list
}

// triggers binds the rules to the stream of events. They are followed as their files and the store change; SIGHUP has the files read
// again at once.
func (p *process) triggers(ctx context.Context, rdb redis.UniversalClient, stream *events.Client, tasks triggers.Tasks, inCode []triggers.Trigger) (*triggers.Rules, *triggers.Feed, error) {
	store, err := triggers.NewStore(rdb, tasks, p.cfg.Triggers.Config)
	if err != nil {
		return nil, nil, cli.UsageError{Err: err}
	}
	rules, err := triggers.NewRules(ctx, triggers.Sources{Code: inCode, Files: p.cfg.Triggers.Files, Store: store}, tasks, p.cfg.Triggers.Config, p.log)
	switch {
	case errors.Is(err, triggers.ErrStoreAway):
		return nil, nil, stoppedOr(ctx, err)
	case err != nil:
		return nil, nil, cli.UsageError{Err: err}
	}
	for _, warning := range rules.Set().Warnings() {
		p.log.Warn("trigger", "warning", warning)
	}
	feed, err := triggers.NewLiveFeed(rules, stream, p.jobs(rdb), p.log)
	return rules, feed, err
}

// active are the names of the triggers that fire.
func active(rules *triggers.Rules) []string {
	var names []string
	for _, t := range rules.Set().Triggers() {
		if !t.Disabled {
			names = append(names, t.Name)
		}
	}
	return names
}

// reloadOnHangup has the files of triggers read again on SIGHUP.
func reloadOnHangup(rules *triggers.Rules) func(context.Context) error {
	return func(ctx context.Context) error {
		hangups := make(chan os.Signal, 1)
		signal.Notify(hangups, syscall.SIGHUP)
		defer signal.Stop(hangups)
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-hangups:
				rules.Reload()
			}
		}
	}
}
