package main

import (
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/bellhop-dev/bellhop/config"
	"github.com/bellhop-dev/bellhop/internal/cli"
	"github.com/bellhop-dev/bellhop/internal/redisconn"
)

const help = `Takes events, jobs and webhooks over HTTP, and tells where they stand.

The public address serves the API: GET /openapi.json describes it. Who calls it shows a key, made by 'gateway keys create'. The
private address serves /healthz, /readyz, /metrics and /debug/pprof to whoever reaches it.

SIGINT or SIGTERM drains: /readyz says no, waits and streams end, requests at work are answered within the grace period, exit 0.
A second signal, half a second later or more, leaves at once.

Settings come from flags, the environment (BELLHOP_GATEWAY_ADDR=:8080) and bellhop.yaml, in this order.
--print-config shows the result, and where each value came from.
Exit codes: 0 done, 1 failed, 2 bad usage or input.`

const examples = `  gateway --redis redis://127.0.0.1:6379
  gateway --addr :443 --cert-file tls.crt --key-file tls.key
  gateway keys create --name shop --scopes publish,enqueue
  curl http://127.0.0.1:8080/v1/jobs -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' \
    -d '{"task":"log:write","payload":{"message":"hello"}}'`

// process is one call of the command.
type process struct {
	printConfig bool
	check       bool
	json        bool

	stdout io.Writer
	stderr *os.File

	loaded *config.Loaded
	cfg    config.Config
	log    *slog.Logger
}

func command(stdout io.Writer, stderr *os.File) *cobra.Command {
	p := &process{stdout: stdout, stderr: stderr}
	cmd := &cobra.Command{
		Use:     "gateway",
		Short:   "Serve bellhop over HTTP: events, jobs, webhooks",
		Long:    help,
		Example: examples,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return cli.Usagef("unknown argument %q: the gateway takes flags, and the command keys", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return p.run(cmd) },
	}
	cmd.SetOut(stdout)
	f := cmd.Flags()
	config.AddFlags(f, "config", "redis", "addr", "private-addr", "cert-file", "key-file")
	f.BoolVar(&p.check, "check", false, "exit 0 if the gateway at the private address is ready, 1 if not")
	f.BoolVar(&p.printConfig, "print-config", false, "print the configuration and where each value came from, and exit")
	f.BoolVar(&p.json, "json", false, "print JSON, for scripts (--print-config)")
	config.AddFlags(f, "log-level", "log-format")
	cmd.AddCommand(p.keysCommand())
	return cmd
}

func (p *process) run(cmd *cobra.Command) error {
	if err := p.load(cmd); err != nil {
		return err
	}
	switch {
	case p.printConfig && p.json:
		return p.loaded.PrintJSON(p.stdout)
	case p.printConfig:
		return p.loaded.Print(p.stdout)
	case p.check:
		return p.checkReady(cmd.Context())
	}
	return p.serve(cmd.Context())
}

// load reads the configuration that the command's flags lead to.
func (p *process) load(cmd *cobra.Command) error {
	loaded, err := config.Load(config.Options{Flags: cmd.Flags(), Env: os.Environ()})
	if err != nil {
		return cli.UsageError{Err: err}
	}
	p.loaded, p.cfg = loaded, loaded.Config
	p.log = p.cfg.Log.Logger(p.stderr, cli.IsTerminal(p.stderr))
	slog.SetDefault(p.log)
	redisconn.QuietDriver(p.log)
	return nil
}
