package main

import (
	"context"
	"errors"
	"fmt"

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

// serve wires what a worker process runs and runs it. rules are added to those of the configured files; ready is told when all is
// wired.
func (p *process) serve(ctx context.Context, rules []triggers.Trigger, ready func(wired)) error {
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
	feed, names, err := p.triggers(rdb, stream, catalog, rules)
	if err != nil {
		return err
	}
	if feed != nil {
		w.Feed("triggers", feed)
		p.log.Info("triggers active", "triggers", names)
	}

	group := new(lifecycle.Group)
	watch := redisconn.NewWatch(rdb, p.cfg.Redis, p.log)
	if !p.dev {
		group.Add("redis watch", watch.Run)
	}
	group.Add("run", w.Run)
	group.Add("catalog", catalog.Run)
	var now wired
	now.triggers = names
	if p.cfg.HTTP.Addr != "" {
		probes, err := newProbes(ctx, p.cfg.HTTP.Addr, w, rdb, watch, p.log)
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

// triggers compiles the rules and binds them to the stream of events, and tells the names of those that fire; without rules
// there is nothing to run.
func (p *process) triggers(rdb redis.UniversalClient, stream *events.Client, tasks triggers.Tasks, rules []triggers.Trigger) (*triggers.Feed, []string, error) {
	fromFiles, err := triggers.Load(p.cfg.Triggers.Files...)
	if err != nil {
		return nil, nil, cli.UsageError{Err: err}
	}
	rules = append(fromFiles, rules...)
	if len(rules) == 0 {
		return nil, nil, nil
	}
	set, err := triggers.Compile(rules, tasks, p.cfg.Triggers.Config)
	if err != nil {
		return nil, nil, cli.UsageError{Err: err}
	}
	for _, warning := range set.Warnings() {
		p.log.Warn("trigger", "warning", warning)
	}
	names := make([]string, 0, len(rules))
	for _, r := range rules {
		if !r.Disabled {
			names = append(names, r.Name)
		}
	}
	feed, err := triggers.NewFeed(set, stream, p.jobs(rdb), p.log)
	return feed, names, err
}
