// Command gateway is bellhop's HTTP door: events, jobs and webhooks come in.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/bellhop-dev/bellhop/internal/cli"
	"github.com/bellhop-dev/bellhop/internal/lifecycle"
)

func main() {
	ctx, stop := lifecycle.WithSignals(context.Background(), func() {
		fmt.Fprintln(os.Stderr, "gateway: told twice to stop, leaving at once; requests at work get no answer")
	})
	code := cli.Main(ctx, command(os.Stdout, os.Stderr), os.Args[1:], os.Stderr)
	stop()
	os.Exit(code)
}
