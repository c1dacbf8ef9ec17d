// Command enqueue puts a job, an event, or a whole file of them into Redis, from a shell.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/bellhop-dev/bellhop/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Main(ctx, command(os.Stdin, os.Stdout, os.Stderr), os.Args[1:], os.Stderr)
	stop()
	os.Exit(code)
}
