package main

import (
	"context"
	"io"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"github.com/bellhop-dev/bellhop/config"
	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/internal/cli"
	"github.com/bellhop-dev/bellhop/internal/redisconn"
	"github.com/bellhop-dev/bellhop/job"
)

const help = `Puts a job, an event, or a whole file of them into Redis.

The payload is JSON, @FILE, or - for standard input. Tasks are learned from the workers that
have registered them, and payloads are checked against their schema before anything is stored.

A duplicate (--id or --unique, or an event seen before) is no failure: what was asked for is there.
Exit codes: 0 done, 1 failed (--wait: the job failed for good, or has not ended in time; --from: a line
was rejected), 2 bad usage or input.`

const examples = `  enqueue log:write '{"message":"hello"}'
  enqueue email:welcome @payload.json --in 10m --queue mail
  enqueue http:request '{"url":"https://example.com/hook"}' --wait 30s
  enqueue --event com.acme.email.received '{"folder":"INBOX"}' --source /mail --id 4711
  enqueue --from jobs.ndjson
  enqueue --list`

// options are the flags of one call.
type options struct {
	queue    string
	id       string
	in       time.Duration
	at       string
	maxRetry int
	timeout  time.Duration
	unique   time.Duration
	wait     time.Duration
	force    bool

	event   string
	source  string
	subject string

	from     string
	rejected string

	list        bool
	deadMatches bool
	replay      string
	json        bool
}

// enqueuer is one call of the command.
type enqueuer struct {
	options
	stdin  io.Reader
	stdout io.Writer
	stderr *os.File
	flags  interface{ Changed(string) bool }

	rdb    redis.UniversalClient
	jobs   *job.Client
	events *events.Client
	fleet  *fleet.Client
	cfg    config.Config
	total  tally

	stored map[string]bool // queues that jobs were stored in
}

func command(stdin io.Reader, stdout io.Writer, stderr *os.File) *cobra.Command {
	e := &enqueuer{stdin: stdin, stdout: stdout, stderr: stderr, stored: make(map[string]bool)}
	cmd := &cobra.Command{
		Use:     "enqueue {TASK | --event TYPE} [JSON|@FILE|-]",
		Short:   "Put a job, an event, or a whole file of them into Redis",
		Long:    help,
		Example: examples,
		RunE: func(cmd *cobra.Command, args []string) error {
			e.flags = cmd.Flags()
			return e.run(cmd, args)
		},
	}
	cmd.SetOut(stdout)
	f := cmd.Flags()
	f.StringVar(&e.queue, "queue", "", "queue of the job (default: the task's)")
	f.StringVar(&e.id, "id", "", "id of the job or event; as long as the first one with it is kept, a second is a duplicate")
	f.DurationVar(&e.in, "in", 0, "start the job after this time, such as 10m")
	f.StringVar(&e.at, "at", "", "start the job at this time, in RFC 3339")
	f.IntVar(&e.maxRetry, "max-retry", 0, "how often a failed job is tried again (default: the task's)")
	f.DurationVar(&e.timeout, "timeout", 0, "how long one attempt may take (default: the task's)")
	f.DurationVar(&e.unique, "unique", 0, "refuse an equal job while this one lives, for this time at most")
	f.DurationVar(&e.wait, "wait", 0, "wait this long for the job's end and print its result")
	f.BoolVar(&e.force, "force", false, "enqueue a task that no worker has registered, unchecked")
	f.StringVar(&e.event, "event", "", "publish an event of this type instead")
	f.StringVar(&e.source, "source", "", "source of the event (default: /enqueue/<host>)")
	f.StringVar(&e.subject, "subject", "", "subject of the event")
	f.StringVar(&e.from, "from", "", "file of jobs and events, one JSON object a line, - for standard input;\n"+
		"with TASK, each line is a payload, with --event, each line is the data")
	f.StringVar(&e.rejected, "rejected", "", "file that gets the lines of --from that could not be taken (default: FILE.rejected, then FILE.rejected.2)")
	f.BoolVar(&e.list, "list", false, "list the tasks known, with their payload's fields")
	f.BoolVar(&e.deadMatches, "dead-matches", false, "list the events that a trigger failed on")
	f.StringVar(&e.replay, "replay", "", "try a dead match again, by its ID")
	f.BoolVar(&e.json, "json", false, "print JSON, for scripts")
	config.AddFlags(f, "redis", "triggers")
	config.AddFlags(f, "config")
	return cmd
}

func (e *enqueuer) run(cmd *cobra.Command, args []string) error {
	do, err := e.action(args)
	if err != nil {
		return err
	}
	f, err := e.form(args)
	if err != nil {
		return err
	}
	if err := e.checkFlags(f); err != nil {
		return err
	}
	loaded, err := config.Load(config.Options{Flags: cmd.Flags(), Env: os.Environ()})
	if err != nil {
		return cli.UsageError{Err: err}
	}
	e.cfg = loaded.Config
	redisconn.QuietDriver(e.cfg.Log.Logger(e.stderr, cli.IsTerminal(e.stderr)))
	if err := e.connect(cmd.Context()); err != nil {
		return err
	}
	defer e.rdb.Close() //nolint:errcheck // nothing is left to be said
	return do(cmd.Context())
}

// action finds what is asked for, and refuses what can't be asked for together.
func (e *enqueuer) action(args []string) (func(context.Context) error, error) {
	task, payload := "", ""
	switch rest := args; {
	case e.event == "" && len(rest) > 0:
		task, args = rest[0], rest[1:]
		fallthrough
	default:
		if len(args) > 1 {
			return nil, cli.Usagef("too many arguments: %q; quote the JSON as one", args[1:])
		}
		if len(args) == 1 {
			payload = args[0]
		}
	}
	switch {
	case e.flags.Changed("event") && strings.TrimSpace(e.event) == "":
		return nil, cli.Usagef("--event is empty: name the event's type, such as com.acme.order.paid")
	case strings.ContainsFunc(e.event, unicode.IsSpace):
		return nil, cli.Usagef("--event %q: %w", e.event, errSpace)
	case e.list:
		return e.listTasks, nil
	case e.deadMatches:
		return e.listDeadMatches, nil
	case e.replay != "":
		return e.replayDeadMatch, nil
	case e.from != "":
		if payload != "" {
			return nil, cli.Usagef("with --from, the payloads come from the file: leave %q out", payload)
		}
		return func(ctx context.Context) error { return e.enqueueFile(ctx, task) }, nil
	case e.event != "":
		return func(ctx context.Context) error { return e.publishOne(ctx, payload) }, nil
	case task != "":
		return func(ctx context.Context) error { return e.enqueueOne(ctx, task, payload) }, nil
	}
	return nil, cli.Usagef("what shall be enqueued? Name a TASK, or use --event, --from or --list")
}

// connect opens Redis. A shell wants its answer soon: the wait for a Redis that is away is short.
func (e *enqueuer) connect(ctx context.Context) error {
	rdb, err := redisconn.Open(e.cfg.Redis)
	if err != nil {
		return cli.UsageError{Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, connectWithin)
	defer cancel()
	if err := rdb.Ping(ctx).Err(); err != nil {
		rdb.Close() //nolint:errcheck // the ping's error says more
		return unreachable(e.cfg.Redis, err)
	}
	client, err := events.NewClient(rdb, e.cfg.EventsConfig())
	if err != nil {
		return err
	}
	e.rdb, e.events = rdb, client
	e.jobs, e.fleet = job.NewClient(rdb, job.Durable(e.cfg.Durable.Replicas, e.cfg.Durable.Within)), fleet.New(rdb)
	return nil
}

const connectWithin = 5 * time.Second
