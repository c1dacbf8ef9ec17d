// Package job declares tasks, enqueues jobs and tells handlers which job they run.
//
// Step 4 of 7: each match of a trigger, and each call of a service, becomes a job here, and goes to Redis through queue.
package job

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

// Definition is what is known of a task without its Go type: what the registry in Redis holds, and what producers that were
// not compiled with the task check payloads against.
type Definition struct {
	Name     string   `json:"name"`
	Defaults Defaults `json:"defaults"`
	Schema   Schema   `json:"schema"`
}

// Defaults are the options that a task's jobs have unless they are enqueued with others.
type Defaults struct {
	Queue     string        `json:"queue"`
	MaxRetry  int           `json:"max_retry"`
	Timeout   time.Duration `json:"timeout_ns"`
	Retention time.Duration `json:"retention_ns,omitempty"`
	Unique    time.Duration `json:"unique_ns,omitempty"`
	Group     string        `json:"group,omitempty"`
}

// The defaults of the defaults, those of asynq.
const (
	DefaultQueue    = "default"
	DefaultMaxRetry = 25
	DefaultTimeout  = 30 * time.Minute
)

// filled has the defaults of the defaults for what is not set. No retries at all is a setting, unless nothing is set.
func (d Defaults) filled() Defaults {
	if d == (Defaults{}) {
		d.MaxRetry = DefaultMaxRetry
	}
	d.Queue = cmp.Or(d.Queue, DefaultQueue)
	d.Timeout = cmp.Or(d.Timeout, DefaultTimeout)
	return d
}

// check refuses what no option could have set.
func (d Defaults) check() error {
	if d.MaxRetry < 0 || d.Timeout < 0 || d.Retention < 0 || d.Unique < 0 {
		return fmt.Errorf("the task's defaults have a negative number: %+v", d)
	}
	return nil
}

// Named is the definition of a task of which nothing but the name is known: asynq's defaults, any JSON as payload.
func Named(name string) Definition {
	return Definition{Name: name, Defaults: Defaults{Queue: DefaultQueue, MaxRetry: DefaultMaxRetry, Timeout: DefaultTimeout}}
}

// Request asks for a job of the task. What its Defaults leave out is asynq's: queue "default", 30 minutes, and if nothing is set, 25
// retries. It fails if the payload does not fit the task's schema or an option is out of range.
func (d Definition) Request(payload []byte, opts ...Option) (Request, error) {
	if err := d.Schema.Check(payload); err != nil {
		return Request{}, fmt.Errorf("payload of %s: %w", d.Name, err)
	}
	return d.request(payload, opts)
}

func (d Definition) request(payload []byte, opts []Option) (Request, error) {
	r, err := d.template(opts)
	if err != nil {
		return Request{}, err
	}
	r.complete(payload)
	return r, nil
}

func (r *Request) complete(payload []byte) {
	if r.options.id == "" {
		r.options.id = newID()
	}
	r.payload = payload
}

// template is a request that lacks the payload and, unless an option gives it, the id.
func (d Definition) template(opts []Option) (Request, error) {
	o := optionsOf(d.Defaults.filled())
	var applied error
	if len(opts) > 0 {
		o, applied = o.with(opts)
	}
	if err := errors.Join(wire.CheckTask(d.Name), d.Defaults.check(), applied, wire.CheckQueue(o.queue)); err != nil {
		return Request{}, fmt.Errorf("enqueue %s: %w", d.Name, err)
	}
	if o.backoff != nil {
		return Request{}, fmt.Errorf("enqueue %s: Retry belongs to the task, pass it to Define", d.Name)
	}
	return Request{task: d.Name, options: o}, nil
}

// Task is a declared task whose payload is a P, stored as JSON.
type Task[P any] struct {
	definition Definition
	backoff    Backoff
	plain      *Request // without options, payload and id; nil if the task was not declared
}

// Define declares a task. The options are the defaults of its jobs; ID, In, At, Deadline, Header and ForEvent belong to
// one job and are refused. It panics on a name, an option or a payload type that could never work: a declaration is code, not input.
//
// The payload's schema is that of P, as encoding/json writes it: a field without omitempty must be there. Tags refine it: jsonschema
// describes a field, enum:"low,high" lists what a text may be, and pattern:"^https?://" is a regular expression that it must match.
func Define[P any](name string, defaults ...Option) Task[P] {
	if err := wire.CheckTask(name); err != nil {
		panic("bellhop: define: " + err.Error())
	}
	o, err := optionsOf(Named(name).Defaults).with(defaults)
	if err != nil {
		panic(fmt.Sprintf("bellhop: define %s: %v", name, err))
	}
	if o.ofOneJob != "" {
		panic(fmt.Sprintf("bellhop: define %s: %s belongs to one job, pass it to Enqueue", name, o.ofOneJob))
	}
	if err := checkStorable[P](); err != nil {
		panic(fmt.Sprintf("bellhop: define %s: a payload of type %T can't be stored: %v", name, *new(P), err))
	}
	schema, err := schemaOf[P]()
	if err != nil {
		panic(fmt.Sprintf("bellhop: define %s: payload: %v", name, err))
	}
	d := Definition{Name: name, Defaults: o.defaults(), Schema: schema}
	plain, err := d.template(nil)
	if err != nil {
		panic("bellhop: define: " + err.Error())
	}
	return Task[P]{definition: d, backoff: o.backoff, plain: &plain}
}

// checkStorable fails if a P has what JSON can't hold.
func checkStorable[P any]() error {
	defer func() { _ = recover() }() // its own MarshalJSON may want more than a zero value
	_, err := json.Marshal(*new(P))
	if errors.As(err, new(*json.UnsupportedTypeError)) {
		return err
	}
	return nil
}

// Name is the task's name, asynq's type.
func (t Task[P]) Name() string { return t.definition.Name }

// Definition is what others may know of the task.
func (t Task[P]) Definition() Definition { return t.definition }

// Request asks for a job of the task, to be given to Client.EnqueueMany.
func (t Task[P]) Request(payload P, opts ...Option) (Request, error) {
	data, err := json.Marshal(payload)
	if err != nil {
		return Request{}, fmt.Errorf("enqueue %s: encode payload: %w", t.Name(), err)
	}
	r, err := t.template(opts)
	if err != nil {
		return Request{}, err
	}
	r.complete(data)
	return r, nil
}

// template spares most calls the checks: Define has done them.
func (t Task[P]) template(opts []Option) (Request, error) {
	if len(opts) == 0 && t.plain != nil {
		return *t.plain, nil
	}
	return t.definition.template(opts)
}

// Enqueue stores one job and returns once Redis has it. A duplicate is told by errors.Is(err, ErrDuplicate).
func (t Task[P]) Enqueue(ctx context.Context, c *Client, payload P, opts ...Option) (*Info, error) {
	r, err := t.Request(payload, opts...)
	if err != nil {
		return nil, err
	}
	return c.enqueue(ctx, r)
}

// EnqueueMany stores a job for each payload, in few round trips, and answers for each in its place. The options hold for all; for options
// of one job, see Request.
func (t Task[P]) EnqueueMany(ctx context.Context, c *Client, payloads []P, opts ...Option) []Result {
	r, refused := t.template(opts)
	entry := r.entry(new(wire.Message))
	var ids ids
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	return c.enqueueEach(ctx, len(payloads), func(i int) (queue.Entry, error) {
		text.Reset()
		if err := encoder.Encode(payloads[i]); err != nil {
			return queue.Entry{}, fmt.Errorf("enqueue %s: encode payload: %w", t.Name(), err)
		}
		if refused != nil {
			return queue.Entry{}, refused
		}
		if r.options.id == "" {
			entry.Message.ID = ids.next()
		}
		r.fill(entry.Message, text.Bytes()[:text.Len()-1]) // without the encoder's line feed
		return entry, nil
	})
}

// HandledBy binds the task to the function that runs its payload. A payload that is not a P is discarded: no retry mends it. A nil function
// makes a route that worker.New refuses.
func (t Task[P]) HandledBy(fn func(ctx context.Context, payload P) error) Route {
	if fn == nil {
		return Route{Definition: t.definition}
	}
	return Route{
		Definition: t.definition,
		Backoff:    t.backoff,
		Handle: func(ctx context.Context, j *Job) error {
			var payload P
			if err := json.Unmarshal(j.Payload, &payload); err != nil {
				return Discard(fmt.Sprintf("payload is not a %T: %v", payload, err))
			}
			return fn(ctx, payload)
		},
	}
}
