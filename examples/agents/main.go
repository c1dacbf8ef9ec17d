// Command agents is a small agent service. Bellhop calls it when something has happened; it runs the workflow for it, and takes
// in the webhooks that bellhop sends on.
package main

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:9000", "serve on this address")
	secrets := flag.String("secrets", "secrets", "directory of the secrets that deliveries are signed with")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, *addr, *secrets); err != nil {
		slog.Error("agents has failed", "err", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, addr, secrets string) error {
	server := &http.Server{Addr: addr, Handler: NewService(secrets).Handler(), ReadHeaderTimeout: 5 * time.Second}
	go func() {
		<-ctx.Done()
		within, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = server.Shutdown(within)
	}()
	slog.Info("agents serves", "addr", addr)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
