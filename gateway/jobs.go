package gateway

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/problem"
	"github.com/bellhop-dev/bellhop/internal/suggest"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/queue"
)

func (g *Gateway) jobRoutes() {
	e := &enqueuing{g: g, decoder: newJobDecoder(g)}
	operation(g, keys.Enqueue, huma.Operation{
		OperationID: "enqueue-job", Method: http.MethodPost, Path: "/v1/jobs", Tags: []string{"Jobs"},
		Summary: "Enqueue a job",
		Description: "Stores a job of any task that the fleet knows, after its payload was checked against the task's schema. 201 says that it is " +
			"durable in Redis. A duplicate, by id or unique, is no failure: 200 names the job that was there first.",
		RequestBody: g.jsonBody(JobRequest{}, exampleJob),
		Responses: map[string]*huma.Response{
			"200": g.jsonAnswer("A duplicate: the earlier job stands, this one was not stored.", StoredJob{}),
			"201": g.jsonAnswer("The job is stored.", StoredJob{}),
		},
		DefaultStatus: http.StatusCreated,
		Errors:        []int{http.StatusConflict},
	}, e.one)
	operation(g, keys.Enqueue, huma.Operation{
		OperationID: "enqueue-jobs", Method: http.MethodPost, Path: "/v1/jobs/batch", Tags: []string{"Jobs"},
		Summary: "Enqueue many jobs",
		Description: "Stores up to max_batch jobs (500 unless configured otherwise), each as POST /v1/jobs would, and answers for each in its place. 200 says " +
			"that all are stored, or are duplicates; 207 that some are not: their status and problem say why. 503 says that Redis took none.",
		RequestBody: g.jsonBody(BatchRequest{}, map[string]any{"jobs": []any{exampleJob}}),
		Responses: map[string]*huma.Response{
			"200": g.jsonAnswer("All are stored, or are duplicates.", BatchAnswer{}),
			"207": g.jsonAnswer("Some are not stored: see each one's status.", BatchAnswer{}),
		},
		Errors: []int{http.StatusConflict},
	}, e.batch)
	g.jobStatusRoutes()
}

var exampleJob = map[string]any{
	"task":    "http:request",
	"payload": map[string]any{"method": "POST", "url": "https://example.com/hook", "json": map[string]any{"order": 4711}},
	"in":      "10m",
}

// StoredJob is what became of a JobRequest.
type StoredJob struct {
	ID    string    `json:"id" example:"018f2c6e-2b1a-4c2f-9a57-1f4b8f0f6f5e" doc:"The job's id; a duplicate has that of the earlier job."`
	Task  string    `json:"task" example:"http:request"`
	Queue string    `json:"queue" example:"default"`
	State string    `json:"state,omitempty" enum:"pending,scheduled,aggregating,active,retry,completed,dead" doc:"Where it stands: pending runs next, scheduled at its time, aggregating with its group. Missing for a duplicate: GET /v1/jobs/{id} tells."`
	At    time.Time `json:"at,omitzero" doc:"When a scheduled job starts."`

	Duplicate bool   `json:"duplicate" doc:"An earlier job stands in its place; nothing was stored."`
	Because   string `json:"because,omitempty" enum:"id,unique" doc:"What the duplicate shares with the earlier job."`
}

// location is where the job's status is.
func (s StoredJob) location() string {
	return "/v1/jobs/" + url.PathEscape(s.ID) + "?queue=" + url.QueryEscape(s.Queue)
}

type enqueueInput struct {
	IdempotencyHeader
}

type enqueueOutput struct {
	Status   int
	Location string `header:"Location" doc:"Where the job's status is."`
	Replayed string `header:"Idempotent-Replayed" doc:"true: the answer is the one that the first request with this Idempotency-Key got."`
	Body     StoredJob
}

// enqueuing makes jobs of requests.
type enqueuing struct {
	g       *Gateway
	decoder jobDecoder
}

func (e *enqueuing) one(ctx context.Context, in *enqueueInput) (*enqueueOutput, error) {
	stored, replayed, err := once(ctx, e.g, "enqueue-job", in.IdempotencyKey, e.store)
	if err != nil {
		return nil, err
	}
	out := &enqueueOutput{Status: http.StatusCreated, Location: stored.location(), Body: stored}
	if stored.Duplicate {
		out.Status = http.StatusOK
	}
	if replayed {
		out.Replayed = "true"
	}
	return out, nil
}

// store stores the one job of the body.
func (e *enqueuing) store(ctx context.Context, seed string) (StoredJob, error) {
	ctx, cancel := e.g.bounded(ctx)
	defer cancel()
	o := e.read(ctx, bodyOf(ctx), "", seed, e.g.task)
	if o.fault != nil {
		return StoredJob{}, o.fault
	}
	results := e.g.deps.Jobs.EnqueueMany(ctx, []job.Request{o.request})
	return e.outcome(ctx, o, results[0])
}

// order is a job that is asked for.
type order struct {
	asked   JobRequest
	queue   string
	seed    string // the id, if it was derived
	request job.Request
	fault   error // why it can't be; the rest is empty then
}

// read makes a job of what was sent. Faults are told below at, a path in the body.
func (e *enqueuing) read(ctx context.Context, data []byte, at, seed string, find findTask) order {
	asked, faults := e.decoder.decode(data, at)
	if len(faults) > 0 {
		return order{fault: refusal(statusOf(data), faults)}
	}
	task, err := find(ctx, asked.Task)
	if err != nil {
		return order{fault: err}
	}
	if task == nil {
		return order{fault: e.unknown(asked.Task, at)}
	}
	options, faults := asked.options(at)
	if err := task.Schema.Check(asked.Payload); err != nil {
		faults = append(faults, problem.Fault{Pointer: pointer(at + ".payload"), Detail: err.Error()})
	}
	if len(faults) > 0 {
		return order{fault: refusal(http.StatusUnprocessableEntity, faults)}
	}
	o := order{asked: asked, queue: asked.Queue}
	if o.queue == "" {
		o.queue = task.Defaults.Queue
	}
	if o.queue == "" {
		o.queue = job.DefaultQueue
	}
	options = append(options, e.retention(asked, *task, seed)...)
	if seed != "" && asked.ID == "" {
		o.seed = seed
		options = append(options, job.ID(seed))
	}
	if o.request, err = task.Request(asked.Payload, options...); err != nil {
		return order{fault: refusal(http.StatusUnprocessableEntity, []problem.Fault{{Pointer: pointer(at), Detail: err.Error()}})}
	}
	return o
}

// statusOf tells what can't be read from what does not fit.
func statusOf(data []byte) int {
	var value any
	if unmarshal(data, &value) != nil {
		return http.StatusBadRequest
	}
	return http.StatusUnprocessableEntity
}

// retention keeps a job that was made here long enough for its status to be asked. With an Idempotency-Key it is a job's presence
// that keeps a repetition from making it again, should the gateway die before it recorded its answer: less is not given then.
func (e *enqueuing) retention(asked JobRequest, task job.Definition, seed string) []job.Option {
	least := e.g.cfg.JobRetention
	given, err := time.ParseDuration(asked.Retention)
	switch {
	case asked.Retention != "" && err == nil && (seed == "" || given >= least):
		return nil
	case asked.Retention == "" && task.Defaults.Retention >= least:
		return nil
	}
	return []job.Option{job.Retention(least)}
}

func (e *enqueuing) unknown(name, at string) error {
	detail := "no worker has registered this task" + suggest.DidYouMean(name, e.g.deps.Catalog.Names()) + "; GET /v1/tasks lists them"
	return problem.New(http.StatusUnprocessableEntity, "unknown-task", "Unknown task", detail, problem.Fault{Pointer: pointer(at + ".task"), Detail: detail})
}

// findTask finds a task, nil if there is none.
type findTask func(ctx context.Context, name string) (*job.Definition, error)

// task finds a task among those known, else among those that a worker registered just now. It is nil if there is none.
func (g *Gateway) task(ctx context.Context, name string) (*job.Definition, error) {
	if d, known := g.deps.Catalog.Task(name); known {
		return &d, nil
	}
	registered, err := g.deps.Fleet.Task(ctx, name)
	switch {
	case errors.Is(err, fleet.ErrUnknownTask):
		return nil, nil //nolint:nilnil // there is none, and that is no fault
	case err != nil:
		return nil, g.outage(ctx, err)
	}
	return &registered.Definition, nil
}

// outcome tells what became of an order.
func (e *enqueuing) outcome(ctx context.Context, o order, r job.Result) (StoredJob, error) {
	stored := StoredJob{Task: o.asked.Task, Queue: o.queue}
	var duplicate *job.DuplicateError
	switch {
	case errors.Is(r.Err, queue.ErrNotReplicated): // of a duplicate, too: it may be what an earlier try of this request has stored
		return StoredJob{}, e.g.outage(ctx, r.Err)
	case r.Err == nil:
		stored.ID, stored.Queue, stored.State, stored.At = r.Info.ID, r.Info.Queue, string(r.Info.State), r.Info.At
	case errors.As(r.Err, &duplicate) && o.seed != "" && duplicate.ID == o.seed:
		return e.own(ctx, stored, o.seed), nil
	case errors.As(r.Err, &duplicate):
		stored.ID, stored.Duplicate, stored.Because = duplicate.ID, true, "id"
		if errors.Is(duplicate, queue.ErrNotUnique) {
			stored.Because = "unique"
		}
	default:
		return StoredJob{}, e.g.outage(ctx, r.Err)
	}
	return stored, nil
}

// own answers for a job that an earlier try of the same request has stored: to the client it is the first.
func (e *enqueuing) own(ctx context.Context, stored StoredJob, id string) StoredJob {
	stored.ID, stored.State = id, string(queue.Pending)
	if found, err := e.g.deps.Fleet.Job(ctx, stored.Queue, id); err == nil {
		stored.State, stored.At = stateOf(found), found.NextAt
	}
	return stored
}
