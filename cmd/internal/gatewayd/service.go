package gatewayd

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/bellhop-dev/bellhop/gateway"
	"github.com/bellhop-dev/bellhop/gateway/guard"
	"github.com/bellhop-dev/bellhop/internal/cli"
)

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
func newPublic(ctx context.Context, cfg gateway.Config, g *gateway.Gateway, guarded *guard.Guard, log *slog.Logger) (*service, error) {
	s := &service{what: "gateway", server: guarded.Server(g.Handler()), grace: cfg.Grace - cfg.DrainDelay, log: log}
	if cfg.CertFile != "" {
		certificate, err := newCertificate(cfg.CertFile, cfg.KeyFile, log)
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

func newPrivate(ctx context.Context, cfg gateway.Config, g *gateway.Gateway, log *slog.Logger) (*service, error) {
	l, err := listen(ctx, cfg.PrivateAddr, "private-addr")
	if err != nil {
		return nil, err
	}
	server := &http.Server{
		Handler: g.Private(), ReadHeaderTimeout: readHeaderWithin, ReadTimeout: profileWithin, WriteTimeout: profileWithin,
		MaxHeaderBytes: 8 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return &service{what: "probes", listener: l, server: server, drain: func(context.Context) {}, grace: closePrivateAfter, log: log}, nil
}

// Run serves until ctx ends, then lets requests that are at work finish.
func (s *service) Run(ctx context.Context) error {
	s.log.Info("serving", "service", s.what, "addr", s.listener.Addr().String(), "tls", s.secure)
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
