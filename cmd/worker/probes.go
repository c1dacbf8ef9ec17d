package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redisconn"
	"github.com/bellhop-dev/bellhop/worker"
)

// probes answer the orchestrator on a private address: /healthz while the process makes progress, /readyz while it takes jobs. They answer
// until the worker has stopped.
type probes struct {
	listener net.Listener
	server   *http.Server
	log      *slog.Logger
}

const (
	readHeaderWithin = 2 * time.Second
	answerWithin     = 5 * time.Second
	closeWithin      = time.Second
	pingWithin       = time.Second
)

// newProbes listens at once, so that a taken address is told before the first job is taken. Once ctx has ended, the worker is not
// ready.
func newProbes(ctx context.Context, addr string, w *worker.Worker, rdb redis.UniversalClient, watch *redisconn.Watch, log *slog.Logger) (*probes, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; choose another address with --http", addr, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(rw http.ResponseWriter, _ *http.Request) { answer(rw, w.Healthy()) })
	mux.HandleFunc("GET /readyz", func(rw http.ResponseWriter, r *http.Request) {
		if ctx.Err() != nil {
			answer(rw, errDraining)
			return
		}
		answer(rw, ready(r.Context(), w, rdb, watch))
	})
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: readHeaderWithin, ReadTimeout: answerWithin, WriteTimeout: answerWithin,
		MaxHeaderBytes: 8 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return &probes{listener, server, log}, nil
}

var errDraining = errors.New("draining")

func ready(ctx context.Context, w *worker.Worker, rdb redis.UniversalClient, watch *redisconn.Watch) error {
	if err := cmp.Or(w.Ready(), watch.Err()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, pingWithin)
	defer cancel()
	if err := rdb.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("Redis does not answer: %w", err) //nolint:staticcheck // a name
	}
	return nil
}

func answer(rw http.ResponseWriter, err error) {
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	rw.Header().Set("Cache-Control", "no-store")
	if err != nil {
		rw.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(rw, err)
		return
	}
	fmt.Fprintln(rw, "ok")
}

// Run serves until ctx ends.
func (p *probes) Run(ctx context.Context) error {
	p.log.Info("probes on", "addr", p.listener.Addr().String())
	stopped := make(chan error, 1)
	go func() { stopped <- p.server.Serve(p.listener) }()
	select {
	case err := <-stopped:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWithin)
	defer cancel()
	if err := p.server.Shutdown(ctx); err != nil {
		return errors.Join(err, p.server.Close())
	}
	return nil
}
