// Command worker is a process of the fleet: it matches events with triggers and runs jobs.
package main

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/bellhop-dev/bellhop/internal/cli"
	"github.com/bellhop-dev/bellhop/internal/lifecycle"
)

func main() {
	var alone atomic.Bool
	ctx, stop := lifecycle.WithSignals(context.Background(), func() {
		running := "running jobs are recovered by other workers"
		if alone.Load() {
			running = "running jobs end here, and their Redis with them"
		}
		fmt.Fprintln(os.Stderr, "worker: told twice to stop, leaving at once; "+running)
	})
	code := cli.Main(ctx, command(os.Stdout, os.Stderr, &alone), os.Args[1:], os.Stderr)
	stop()
	os.Exit(code)
}
