package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/internal/cli"
	"github.com/bellhop-dev/bellhop/internal/redisconn"
	"github.com/bellhop-dev/bellhop/internal/suggest"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

func unreachable(cfg redisconn.Config, err error) error {
	if advice := redisconn.Advice(err); advice != "" {
		return fmt.Errorf("connect to Redis at %s: %w; %s", cfg, err, advice)
	}
	return fmt.Errorf("Redis at %s does not answer: %w\nStart one, or name another with --redis or BELLHOP_REDIS_URL.", cfg, err) //nolint:revive,staticcheck // for a person to read
}

// maxPayloadBytes bounds what is read as one payload. Redis would take more; a queue should not.
const maxPayloadBytes = 16 << 20

// errNotUTF8: decoders of JSON put another character in the place of what is wrong, and say nothing.
var errNotUTF8 = errors.New("it is not UTF-8, which JSON must be: convert it, with iconv for instance")

// errSpace: CloudEvents allows it, and no pattern of a trigger is meant to match it.
var errSpace = errors.New("an event's type has no spaces; it is a name such as com.acme.order.paid")

// readPayload takes JSON, @FILE or -; nothing means an empty object.
func (e *enqueuer) readPayload(arg string) ([]byte, error) {
	var in io.Reader
	switch {
	case arg == "":
		return []byte("{}"), nil
	case arg == "-":
		in = e.stdin
	case strings.HasPrefix(arg, "@"):
		f, err := os.Open(arg[1:])
		if err != nil {
			return nil, cli.Usagef("read the payload: %w", err)
		}
		defer f.Close() //nolint:errcheck // read only
		in = f
	default:
		in = strings.NewReader(arg)
	}
	data, err := io.ReadAll(io.LimitReader(in, maxPayloadBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read the payload: %w", err)
	}
	if len(data) > maxPayloadBytes {
		return nil, cli.Usagef("the payload is larger than %d MiB: store it elsewhere and enqueue a reference", maxPayloadBytes>>20)
	}
	if !utf8.Valid(data) {
		return nil, cli.Usagef("read the payload: %w", errNotUTF8)
	}
	return bytes.TrimSpace(data), nil
}

func (e *enqueuer) enqueueOne(ctx context.Context, task, arg string) error {
	payload, err := e.readPayload(arg)
	if err != nil {
		return err
	}
	definition, err := e.definition(ctx, task)
	if err != nil {
		return err
	}
	opts, err := e.jobOptions()
	if err != nil {
		return err
	}
	if e.wait > 0 && definition.Defaults.Retention < keptForWait {
		opts = append(opts, job.Retention(keptForWait)) // else a finished job could not be told from a deleted one
	}
	request, err := definition.Request(payload, opts...)
	if err != nil {
		return cli.UsageError{Err: err}
	}
	info, err := e.jobs.Enqueue(ctx, request)
	if duplicate, ok := errors.AsType[*job.DuplicateError](err); ok {
		queue := definition.Defaults.Queue
		if e.queue != "" {
			queue = e.queue
		}
		info = &job.Info{ID: duplicate.ID, Task: task, Queue: queue, State: stateDuplicate}
	} else if err != nil {
		return err
	}
	if e.wait > 0 {
		return e.await(ctx, info)
	}
	e.stored[info.Queue] = true
	if err := e.printJob(info); err != nil {
		return err
	}
	e.tellUnserved(ctx)
	return nil
}

// tellUnserved says which jobs will wait for a worker. What runs them may be a server of asynq, which does not say so to the fleet.
func (e *enqueuer) tellUnserved(ctx context.Context) {
	queues := e.unserved(ctx, slices.Sorted(maps.Keys(e.stored))...)
	if len(queues) > 0 {
		fmt.Fprintf(e.stderr, "no bellhop worker serves queue %s at %s yet: start one with --queues %s\n",
			strings.Join(queues, ", "), e.cfg.Redis, strings.Join(queues, ","))
	}
}

// unserved are the queues that no live worker serves; none if that can't be told.
func (e *enqueuer) unserved(ctx context.Context, queues ...string) []string {
	return slices.DeleteFunc(queues, func(queue string) bool {
		return !errors.Is(e.fleet.CheckServed(ctx, []string{queue}), fleet.ErrNotServed)
	})
}

// keptForWait is how long a job is kept whose end is waited for.
const keptForWait = time.Minute

// definition finds the task among the built-in ones and those that workers have registered.
func (e *enqueuer) definition(ctx context.Context, name string) (job.Definition, error) {
	task, err := e.fleet.Task(ctx, name)
	if err == nil {
		return task.Definition, nil
	}
	if !errors.Is(err, fleet.ErrUnknownTask) {
		return job.Definition{}, err
	}
	names := make([]string, 0)
	for _, d := range tasks.BuiltIn() {
		if d.Name == name {
			return d, nil
		}
		names = append(names, d.Name)
	}
	if e.force {
		return job.Named(name), nil
	}
	registered, err := e.fleet.Tasks(ctx)
	if err != nil {
		return job.Definition{}, err
	}
	for _, t := range registered {
		names = append(names, t.Name)
	}
	return job.Definition{}, cli.Usagef("no worker has registered the task %q%s\n"+
		"Start a worker that serves it, see the known ones with --list, or enqueue it unchecked with --force.",
		name, suggest.DidYouMean(name, names))
}

func (e *enqueuer) jobOptions() ([]job.Option, error) {
	var opts []job.Option
	set := func(flag string, opt func() job.Option) {
		if e.flags.Changed(flag) {
			opts = append(opts, opt())
		}
	}
	set("queue", func() job.Option { return job.Queue(e.queue) })
	set("id", func() job.Option { return job.ID(e.id) })
	set("in", func() job.Option { return job.In(e.in) })
	set("max-retry", func() job.Option { return job.MaxRetry(e.maxRetry) })
	set("timeout", func() job.Option { return job.Timeout(e.timeout) })
	set("unique", func() job.Option { return job.Unique(e.unique) })
	if e.at != "" {
		at, err := time.Parse(time.RFC3339Nano, e.at)
		if err != nil {
			return nil, cli.Usagef("--at %q is not a time in RFC 3339, such as 2026-01-31T09:00:00Z", e.at)
		}
		opts = append(opts, job.At(at))
	}
	return opts, nil
}

func (e *enqueuer) publishOne(ctx context.Context, arg string) error {
	data, err := e.readPayload(arg)
	if err != nil {
		return err
	}
	event, err := e.newEvent(data)
	if err != nil {
		return cli.UsageError{Err: err}
	}
	published, err := e.events.PublishOne(ctx, event)
	if err != nil {
		return err
	}
	return e.printEvent(event, published)
}

// newEvent makes an event of the flags and its data.
func (e *enqueuer) newEvent(data []byte) (*events.Event, error) {
	if !json.Valid(data) {
		return nil, errors.New("the data is not JSON")
	}
	var opts []events.Option
	if e.id != "" {
		opts = append(opts, events.ID(e.id))
	}
	if e.subject != "" {
		opts = append(opts, events.Subject(e.subject))
	}
	return events.New(e.event, e.eventSource(), json.RawMessage(data), opts...)
}

func (e *enqueuer) eventSource() string {
	if e.source != "" {
		return e.source
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return "/enqueue/" + host
}
