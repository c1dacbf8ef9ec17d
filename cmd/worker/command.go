package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/bellhop-dev/bellhop/config"
	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/internal/cli"
	"github.com/bellhop-dev/bellhop/internal/redisconn"
)

const help = `Takes events and jobs from Redis: matches events with triggers, and runs jobs with their handlers.

SIGINT or SIGTERM drains: no more is taken, running jobs finish within the grace period, the others are
handed back, exit 0. A second signal, half a second later or more, leaves at once.

Settings come from flags, the environment (BELLHOP_WORKER_CONCURRENCY=20) and bellhop.yaml, in this order.
--print-config shows the result, and where each value came from.
Exit codes: 0 done, 1 failed (--burst: a job failed for good; --check: a queue is not served), 2 bad usage or input.`

const examples = `  worker --dev
  worker --redis redis://127.0.0.1:6379 --queues critical=6,default=3,low=1 --concurrency 20
  worker --burst
  worker --check --queues default`

// options are the flags that are no settings.
type options struct {
	dev         bool
	check       bool
	printConfig bool
	json        bool
}

// process is one call of the command.
type process struct {
	options
	stdout io.Writer
	stderr *os.File

	// alone is set once nobody else can have a part in this Redis.
	alone *atomic.Bool

	cfg config.Config
	log *slog.Logger
}

func command(stdout io.Writer, stderr *os.File, alone *atomic.Bool) *cobra.Command {
	p := &process{stdout: stdout, stderr: stderr, alone: alone}
	cmd := &cobra.Command{
		Use:     "worker",
		Short:   "Run a process of the fleet: triggers and jobs",
		Long:    help,
		Example: examples,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return cli.Usagef("unknown argument %q, a worker takes flags only", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return p.run(cmd) },
	}
	cmd.SetOut(stdout)
	f := cmd.Flags()
	f.BoolVar(&p.dev, "dev", false, "a worker with a Redis of its own: the redis-server it finds, else one in this process;\nnothing is kept; says what to try")
	config.AddFlags(f, "config", "redis", "queues", "concurrency", "burst", "http", "triggers", "engine", "grace")
	f.BoolVar(&p.check, "check", false, "exit 0 if a live worker serves every configured queue, 1 if not")
	f.BoolVar(&p.printConfig, "print-config", false, "print the configuration and where each value came from, and exit")
	f.BoolVar(&p.json, "json", false, "print JSON, for scripts (--check, --print-config)")
	config.AddFlags(f, "log-level", "log-format")
	return cmd
}

func (p *process) run(cmd *cobra.Command) error {
	loaded, err := config.Load(config.Options{Flags: cmd.Flags(), Env: os.Environ()})
	if err != nil {
		return cli.UsageError{Err: err}
	}
	p.cfg = loaded.Config
	p.log = p.cfg.Log.Logger(p.stderr, cli.IsTerminal(p.stderr))
	slog.SetDefault(p.log)
	redisconn.QuietDriver(p.log)
	p.cfg.Worker.Logger = p.log

	switch {
	case p.printConfig && p.json:
		return loaded.PrintJSON(p.stdout)
	case p.printConfig:
		return loaded.Print(p.stdout)
	case p.check:
		return p.checkServed(cmd.Context())
	case p.dev:
		return p.runDev(cmd.Context(), loaded)
	}
	return p.serve(cmd.Context(), nil, func(wired) {})
}

// checkWithin keeps --check well below a second, whatever Redis does: it is a probe.
const checkWithin = 800 * time.Millisecond

func (p *process) checkServed(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	rdb, err := redisconn.Open(p.cfg.Redis)
	if err != nil {
		return cli.UsageError{Err: err}
	}
	defer rdb.Close() //nolint:errcheck // the process ends
	queues := p.cfg.Worker.QueueNames()
	err = fleet.New(rdb).CheckServed(ctx, queues)
	return p.tellCheck(queues, err)
}
