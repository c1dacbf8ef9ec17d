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
	check := flag.Bool("check", false, "ask the service at -addr whether it answers, and exit")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := func() error { return serve(ctx, *addr, *secrets) }
	if *check {
		run = func() error { return answers(ctx, *addr) }
	}
	if err := run(); err != nil {
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

// answers is for container images, which have no curl.
func answers(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/runs", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}
