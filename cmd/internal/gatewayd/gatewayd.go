// Package gatewayd wires the gateway's process, for cmd/gateway and for the worker's --dev, which has everything in one.
package gatewayd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/config"
	"github.com/bellhop-dev/bellhop/endpoints"
	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/gateway"
	"github.com/bellhop-dev/bellhop/gateway/guard"
	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/cli"
	"github.com/bellhop-dev/bellhop/internal/lifecycle"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/sources/webhook"
	"github.com/bellhop-dev/bellhop/telemetry"
	"github.com/bellhop-dev/bellhop/triggers"
)

// Gateway is the gateway with its addresses, which it listens on already.
type Gateway struct {
	public, private *service
}

// New wires a gateway of that configuration over rdb. The caller runs the catalog, and then Run or Join. What the configuration is to blame for
// is a cli.UsageError.
func New(ctx context.Context, cfg config.Config, rdb redis.UniversalClient, catalog *fleet.Catalog, log *slog.Logger) (*Gateway, error) {
	metrics := telemetry.New(log)
	served := metrics.HTTP()
	guarded, err := guard.New(cfg.Gateway.Guard, guard.Deps{
		Redis: rdb, Keys: keys.NewStore(rdb, cfg.Gateway.Keys), Observer: served, Log: log,
	})
	if err != nil {
		return nil, cli.UsageError{Err: err}
	}
	stream, err := events.NewClient(rdb, cfg.EventsConfig())
	if err != nil {
		return nil, fmt.Errorf("events: %w", err)
	}
	publisher := metrics.Publisher(stream)
	hooks, err := webhook.New(cfg.Hooks, publisher, log, metrics.Hooks())
	if err != nil {
		return nil, cli.UsageError{Err: err}
	}
	rules, err := triggers.NewStore(rdb, catalog, cfg.Triggers.Config)
	if err != nil {
		return nil, cli.UsageError{Err: err}
	}
	known, err := endpoints.New(rdb, cfg.Handlers.Webhooks.Config)
	if err != nil {
		return nil, cli.UsageError{Err: err}
	}
	g, err := gateway.New(cfg.Gateway, gateway.Deps{
		Redis:     rdb,
		Jobs:      job.NewClient(rdb, job.Durable(cfg.Durable.Replicas, cfg.Durable.Within)),
		Events:    stream,
		Fleet:     fleet.New(rdb),
		Catalog:   catalog,
		Guard:     guarded,
		Triggers:  rules,
		Endpoints: known,
		Hooks:     hooks,
		Publisher: publisher,
		Streams:   served,
		Metrics:   metrics.Handler(),
		Logger:    log,
	})
	if err != nil {
		return nil, cli.UsageError{Err: err}
	}
	public, err := newPublic(ctx, cfg.Gateway, g, guarded, log)
	if err != nil {
		return nil, err
	}
	private, err := newPrivate(ctx, cfg.Gateway, g, log)
	if err != nil {
		return nil, errors.Join(err, public.listener.Close())
	}
	return &Gateway{public, private}, nil
}

// Join adds the gateway to a process.
func (g *Gateway) Join(group *lifecycle.Group) {
	group.Add("gateway", g.public.Run)
	group.AddLast("gateway probes", g.private.Run) // who asks while requests finish is told that the gateway drains
}

// Addr is where the public is served.
func (g *Gateway) Addr() string { return g.public.listener.Addr().String() }

// PrivateAddr is where probes and metrics are served.
func (g *Gateway) PrivateAddr() string { return g.private.listener.Addr().String() }
