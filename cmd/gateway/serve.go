package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/gateway"
	"github.com/bellhop-dev/bellhop/gateway/guard"
	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/cli"
	"github.com/bellhop-dev/bellhop/internal/lifecycle"
	"github.com/bellhop-dev/bellhop/internal/redisconn"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/sources/webhook"
	"github.com/bellhop-dev/bellhop/tasks"
	"github.com/bellhop-dev/bellhop/telemetry"
)

// serve wires what a gateway process runs and runs it.
func (p *process) serve(ctx context.Context) error {
	rdb, err := redisconn.Open(p.cfg.Redis)
	if err != nil {
		return cli.UsageError{Err: err}
	}
	defer rdb.Close() //nolint:errcheck // the process ends
	if _, err := redisconn.Check(ctx, rdb, p.cfg.Redis, p.log); err != nil {
		return stoppedOr(ctx, err)
	}
	f := fleet.New(rdb)
	catalog := fleet.NewCatalog(f, p.log, tasks.BuiltIn()...)
	if err := catalog.Refresh(ctx); err != nil {
		return stoppedOr(ctx, err)
	}
	metrics := telemetry.New(p.log)
	guarded, err := guard.New(p.cfg.Gateway.Guard, guard.Deps{
		Redis: rdb, Keys: keys.NewStore(rdb, p.cfg.Gateway.Keys), Observer: metrics.HTTP(), Log: p.log,
	})
	if err != nil {
		return cli.UsageError{Err: err}
	}
	deps, err := p.deps(rdb)
	if err != nil {
		return err
	}
	deps.Fleet, deps.Catalog, deps.Guard, deps.Metrics = f, catalog, guarded, metrics.Handler()
	deps.Hooks, err = webhook.New(p.cfg.Hooks, metrics.Publisher(deps.Events), p.log, metrics.Hooks())
	if err != nil {
		return cli.UsageError{Err: err}
	}
	g, err := gateway.New(p.cfg.Gateway, deps)
	if err != nil {
		return cli.UsageError{Err: err}
	}
	public, err := p.newPublic(ctx, g, guarded)
	if err != nil {
		return err
	}
	private, err := p.newPrivate(ctx, g)
	if err != nil {
		return errors.Join(err, public.listener.Close())
	}

	group := new(lifecycle.Group)
	group.Add("redis watch", redisconn.NewWatch(rdb, p.cfg.Redis, p.log).Run)
	group.Add("serve", public.Run)
	group.Add("catalog", catalog.Run)
	group.AddLast("probes", private.Run) // who asks while requests finish is told that the gateway drains
	return group.Run(ctx)
}

// deps are what the gateway publishes and enqueues with.
func (p *process) deps(rdb redis.UniversalClient) (gateway.Deps, error) {
	stream, err := events.NewClient(rdb, p.cfg.EventsConfig())
	if err != nil {
		return gateway.Deps{}, fmt.Errorf("events: %w", err)
	}
	return gateway.Deps{
		Redis:  rdb,
		Jobs:   job.NewClient(rdb, job.Durable(p.cfg.Durable.Replicas, p.cfg.Durable.Within)),
		Events: stream,
		Logger: p.log,
	}, nil
}

// stoppedOr takes a failure for none if the process was told to stop meanwhile.
func stoppedOr(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// service is one of the addresses.
type service struct {
	what     string
	listener net.Listener
	server   *http.Server
	secure   bool
	drain    func(ctx context.Context) // before the server is shut down
	grace    time.Duration
	log      *slog.Logger
}

func listen(ctx context.Context, addr, key string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; choose another address with --%s", addr, err, key)
	}
	return l, nil
}

// newPublic listens at once, so that a taken address is told before anything else happens.
func (p *process) newPublic(ctx context.Context, g *gateway.Gateway, guarded *guard.Guard) (*service, error) {
	cfg := p.cfg.Gateway
	s := &service{what: "gateway", server: guarded.Server(g.Handler()), grace: cfg.Grace - cfg.DrainDelay, log: p.log}
	if cfg.CertFile != "" {
		certificate, err := newCertificate(cfg.CertFile, cfg.KeyFile, p.log)
		if err != nil {
			return nil, cli.UsageError{Err: err}
		}
		s.secure, s.server.TLSConfig = true, certificate.config()
	}
	s.drain = func(ctx context.Context) {
		g.Drain()
		select {
		case <-time.After(cfg.DrainDelay):
		case <-ctx.Done():
		}
	}
	l, err := listen(ctx, cfg.Addr, "addr")
	if err != nil {
		return nil, err
	}
	s.listener = guarded.Listener(l)
	return s, nil
}

// Times of the private address. A profile takes 30 s unless it is asked for otherwise.
const (
	readHeaderWithin  = 5 * time.Second
	profileWithin     = 2 * time.Minute
	closePrivateAfter = time.Second
)

func (p *process) newPrivate(ctx context.Context, g *gateway.Gateway) (*service, error) {
	l, err := listen(ctx, p.cfg.Gateway.PrivateAddr, "private-addr")
	if err != nil {
		return nil, err
	}
	server := &http.Server{
		Handler: g.Private(), ReadHeaderTimeout: readHeaderWithin, ReadTimeout: profileWithin, WriteTimeout: profileWithin,
		MaxHeaderBytes: 8 << 10, ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
	return &service{what: "probes", listener: l, server: server, drain: func(context.Context) {}, grace: closePrivateAfter, log: p.log}, nil
}

// Run serves until ctx ends, then lets requests that are at work finish.
func (s *service) Run(ctx context.Context) error {
	s.log.Info(s.what+" on", "addr", s.listener.Addr().String(), "tls", s.secure)
	stopped := make(chan error, 1)
	go func() { stopped <- s.accept() }()
	select {
	case err := <-stopped:
		return err
	case <-ctx.Done():
	}
	// The grace outlives the context whose end began it.
	closing := context.WithoutCancel(ctx)
	s.drain(closing)
	closing, cancel := context.WithTimeout(closing, max(s.grace, 0))
	defer cancel()
	if err := s.server.Shutdown(closing); err != nil {
		s.log.Warn("requests were cut off: they took longer than the grace period", "service", s.what, "grace", s.grace)
		return s.server.Close()
	}
	return nil
}

func (s *service) accept() error {
	if s.secure {
		return s.server.ServeTLS(s.listener, "", "")
	}
	return s.server.Serve(s.listener)
}
