package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/gateway/guard"
	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/problem"
)

func (g *Gateway) jobStatusRoutes() {
	operation(g, keys.Read, huma.Operation{
		OperationID: "get-job", Method: http.MethodGet, Path: "/v1/jobs/{id}", Tags: []string{"Jobs"},
		Summary: "Ask where a job stands",
		Description: "Tells the job's state, and its result once it is completed. With wait, the answer comes as soon as the job has ended, or when the " +
			"time is over, with the job as it then is: look at ended. A job is gone, 404, when its retention is over.",
		Responses:   map[string]*huma.Response{"200": g.jsonAnswer("The job.", JobStatus{})},
		Errors:      []int{http.StatusNotFound, http.StatusConflict},
		Middlewares: huma.Middlewares{g.unhurried},
	}, g.jobStatus)
	operation(g, keys.Enqueue, huma.Operation{
		OperationID: "delete-job", Method: http.MethodDelete, Path: "/v1/jobs/{id}", Tags: []string{"Jobs"},
		Summary: "Cancel or remove a job",
		Description: "Removes a job that waits or has ended: 204. One that runs is asked to stop: 202; its handler's context ends, and the job is " +
			"kept among the dead as cancelled. A handler that does not heed its context runs on.",
		Responses: map[string]*huma.Response{
			"202": g.jsonAnswer("The job runs; it was asked to stop.", JobStatus{}),
			"204": {Description: "The job is removed."},
		},
		DefaultStatus: http.StatusNoContent,
		Errors:        []int{http.StatusNotFound, http.StatusConflict},
	}, g.deleteJob)
}

// answerBeyond is how much longer than its wait an answer may take.
const answerBeyond = 10 * time.Second

// unhurried gives an answer that waits its time, in place of the server's time-outs.
func (g *Gateway) unhurried(ctx huma.Context, next func(huma.Context)) {
	if ctx.Query("wait") != "" {
		_, w := humago.Unwrap(ctx)
		if err := guard.Unhurried(w, g.cfg.MaxWait+g.cfg.RedisWithin+answerBeyond); err != nil {
			g.log.DebugContext(ctx.Context(), "the server's time-outs can't be changed, a wait may be cut", "err", err)
		}
	}
	next(ctx)
}

// JobStatus is where a job stands.
type JobStatus struct {
	ID        string    `json:"id" example:"018f2c6e-2b1a-4c2f-9a57-1f4b8f0f6f5e"`
	Task      string    `json:"task" example:"http:request"`
	Queue     string    `json:"queue" example:"default"`
	State     string    `json:"state" enum:"pending,scheduled,aggregating,active,retry,completed,dead" doc:"pending: runs next. scheduled, retry: waits for next_at. aggregating: waits for its group. active: runs. completed: succeeded. dead: failed for good, or was cancelled."`
	Ended     bool      `json:"ended" doc:"The job will not run again by itself."`
	Attempts  int       `json:"attempts" example:"1" doc:"How many attempts were begun, the running one included. A snooze is none."`
	MaxRetry  int       `json:"max_retry" example:"25" doc:"How many attempts may follow the first one."`
	LastError string    `json:"last_error,omitempty" doc:"What the last failed attempt said."`
	NextAt    time.Time `json:"next_at,omitzero" doc:"When a scheduled or retrying job starts."`
	Result    any       `json:"result,omitempty" doc:"What the handler returned: as it is if it is JSON, else as text, or in base64 if it is not UTF-8. Missing if there is none."`
	ResultCut bool      `json:"result_cut,omitempty" doc:"There was a result, too long to be told, and it was not kept."`
}

func statusOfJob(j fleet.Job) JobStatus {
	return JobStatus{
		ID: j.ID, Task: j.Task, Queue: j.Queue, State: stateOf(j), Ended: j.Dead() || j.Completed(),
		Attempts: attemptsOf(j), MaxRetry: j.MaxRetry, LastError: j.LastError, NextAt: j.NextAt,
		Result: resultOf(j.Result), ResultCut: j.ResultCut,
	}
}

// stateOf is the job's state in bellhop's words.
func stateOf(j fleet.Job) string {
	if j.Dead() {
		return "dead"
	}
	return j.State
}

// attemptsOf counts from what is stored: the failures that were tried again, and the attempt that runs or was the last.
func attemptsOf(j fleet.Job) int {
	if j.Completed() || j.Dead() || j.State == "active" {
		return j.Retried + 1
	}
	return j.Retried
}

func resultOf(data []byte) any {
	switch {
	case len(data) == 0:
		return nil
	case json.Valid(data) && utf8.Valid(data):
		return json.RawMessage(data)
	case utf8.Valid(data):
		return string(data)
	}
	return data // encoding/json writes base64
}

// JobRef names a job in a request. It is exported for huma, which embeds no others.
type JobRef struct {
	ID    string `path:"id" maxLength:"255" example:"018f2c6e-2b1a-4c2f-9a57-1f4b8f0f6f5e" doc:"The job's id."`
	Queue string `query:"queue" maxLength:"255" example:"default" doc:"The job's queue. Without it every queue is looked at; needed if several have a job with this id."`
}

type statusInput struct {
	JobRef
	Wait string `query:"wait" example:"30s" doc:"Wait up to this duration for the job's end, at most max_wait (60s unless configured otherwise)."`
}

type statusOutput struct {
	Body JobStatus
}

func (g *Gateway) jobStatus(ctx context.Context, in *statusInput) (*statusOutput, error) {
	wait, err := g.parseWait(in.Wait)
	if err != nil {
		return nil, err
	}
	found, err := g.findJob(ctx, in.JobRef)
	if err == nil && wait > 0 && !found.Dead() && !found.Completed() {
		found, err = g.awaitJob(ctx, found, wait)
	}
	if err != nil {
		return nil, err
	}
	return &statusOutput{Body: statusOfJob(found)}, nil
}

func (g *Gateway) parseWait(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err == nil && d >= 0 && d <= g.cfg.MaxWait {
		return d, nil
	}
	return 0, refusal(http.StatusUnprocessableEntity, []problem.Fault{{
		Parameter: "wait", Detail: fmt.Sprintf("it must be a duration such as 30s, at most %v: ask again for more", g.cfg.MaxWait),
	}})
}

func (g *Gateway) findJob(ctx context.Context, ref JobRef) (fleet.Job, error) {
	ctx, cancel := g.bounded(ctx)
	defer cancel()
	var found fleet.Job
	var err error
	if ref.Queue == "" {
		found, err = g.deps.Fleet.Find(ctx, ref.ID)
	} else {
		found, err = g.deps.Fleet.Job(ctx, ref.Queue, ref.ID)
	}
	return found, g.jobProblem(ctx, err)
}

// awaitJob returns the job once it has ended, or as it is when the time is over or the gateway is to stop.
func (g *Gateway) awaitJob(ctx context.Context, j fleet.Job, wait time.Duration) (fleet.Job, error) {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	go func() {
		select {
		case <-g.draining:
			cancel()
		case <-waiting.Done():
		}
	}()
	last, err := g.deps.Fleet.Await(waiting, j.Queue, j.ID)
	switch {
	case err != nil && waiting.Err() != nil && errors.Is(err, waiting.Err()) && last.ID != "":
		return last, nil
	case err != nil && waiting.Err() != nil && errors.Is(err, waiting.Err()):
		return j, nil // there was no time for a look
	}
	return last, g.jobProblem(ctx, err)
}

// jobProblem says why a job can't be told.
func (g *Gateway) jobProblem(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fleet.ErrNoJob):
		return problem.New(http.StatusNotFound, "no-such-job", "No such job",
			"there is no such job (any more): it never was, is done and its retention is over, or was removed; check the id and the queue",
			problem.Fault{Parameter: "id", Detail: "no job has it"})
	case errors.Is(err, fleet.ErrAmbiguous):
		return problem.New(http.StatusConflict, "ambiguous-job", "Several jobs have this id", err.Error()+" with ?queue=",
			problem.Fault{Parameter: "queue", Detail: "it must be given: several queues have a job with this id"})
	}
	return g.outage(ctx, err)
}

type deleteInput struct {
	JobRef
}

type deleteOutput struct {
	Status int
	Body   *JobStatus
}

func (g *Gateway) deleteJob(ctx context.Context, in *deleteInput) (*deleteOutput, error) {
	found, err := g.findJob(ctx, in.JobRef)
	if err != nil {
		return nil, err
	}
	ctx, cancel := g.bounded(ctx)
	defer cancel()
	err = g.deps.Fleet.Remove(ctx, found.Queue, found.ID)
	if errors.Is(err, fleet.ErrRuns) {
		if err := g.deps.Fleet.Cancel(ctx, found.ID); err != nil {
			return nil, g.jobProblem(ctx, err)
		}
		found.State = "active"
		status := statusOfJob(found)
		return &deleteOutput{Status: http.StatusAccepted, Body: &status}, nil
	}
	if err != nil {
		return nil, g.jobProblem(ctx, err)
	}
	return &deleteOutput{Status: http.StatusNoContent}, nil
}
