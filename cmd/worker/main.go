// Command worker is a process of the fleet: it matches events with triggers and runs jobs.
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
		fmt.Fprintln(os.Stderr, "worker: told twice to stop, leaving at once; running jobs are recovered by other workers")
	})
	code := cli.Main(ctx, command(os.Stdout, os.Stderr), os.Args[1:], os.Stderr)
	stop()
	os.Exit(code)
}
