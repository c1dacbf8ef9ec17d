package gateway

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/problem"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/queue"
)

// replayTask is the built-in task that a replay runs as.
const replayTask = "events:replay"

func (g *Gateway) replayRoutes() {
	e := &enqueuing{g: g}
	operation(g, keys.Admin, huma.Operation{
		OperationID: "replay-events", Method: http.MethodPost, Path: "/v1/events/replay", Tags: []string{"Events"},
		Summary: "Replay events",
		Description: "Publishes copies of past events: all that are kept, a range, or those that fit a filter; for all triggers, or for one. Copies have ids of " +
			"their own, and name the event and the replay in the extensions replayof and replayid. The replay runs as a job, " + replayTask +
			": the answer says which. It ends with the newest event there was when it began; a crash does not make it publish anything twice.",
		RequestBody: g.jsonBody(ReplayBody{}, map[string]any{
			"type": "com.acme.email.*", "from": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z", "trigger": "triage-inbox", "rate": 50,
		}),
		Responses:     map[string]*huma.Response{"202": g.jsonAnswer("The replay's job is stored.", StartedReplay{})},
		DefaultStatus: http.StatusAccepted,
		Errors:        []int{http.StatusConflict},
	}, e.replayEvents)
	operation(g, keys.Read, huma.Operation{
		OperationID: "get-replay", Method: http.MethodGet, Path: "/v1/events/replay/{id}", Tags: []string{"Events"},
		Summary:     "Ask how far a replay has come",
		Description: "Tells what the replay has looked at and published so far. It is known from its first step on, and for a week after its last one.",
		Responses:   map[string]*huma.Response{"200": g.jsonAnswer("The progress.", events.ReplayProgress{})},
		Errors:      []int{http.StatusNotFound},
	}, g.replayProgress)
}

// ReplayBody describes an events.ReplayRequest.
type ReplayBody struct {
	ID       string    `json:"id,omitempty" maxLength:"128" doc:"Names the replay. The same one again goes on where it was, and publishes nothing twice. Default: the job's id."`
	From     time.Time `json:"from,omitzero" doc:"Replay what was stored at this time (RFC 3339) or later. Default: from the oldest event on."`
	Until    time.Time `json:"until,omitzero" doc:"Replay what was stored before this time (RFC 3339). Default: up to the newest event."`
	StreamID string    `json:"stream_id,omitempty" maxLength:"64" doc:"Replay the one event at this place, in place of a range."`
	Type     string    `json:"type,omitempty" maxLength:"512" doc:"Pattern of the event type: * is one segment, ** as the last one the rest."`
	Source   string    `json:"source,omitempty" maxLength:"2048" doc:"Only events of this source."`
	Subject  string    `json:"subject,omitempty" maxLength:"4096" doc:"Only events of this subject."`
	Trigger  string    `json:"trigger,omitempty" maxLength:"256" doc:"The only trigger that shall see the copies, as name, or group:name for one of another group than the default. It fires if it matches."`
	Rate     float64   `json:"rate,omitempty" minimum:"0" maximum:"1000000" doc:"Events a second at most. Default 0: as fast as it goes."`
	Copies   bool      `json:"copies,omitempty" doc:"Replay also what earlier replays have published."`
}

// StartedReplay names a replay and its job.
type StartedReplay struct {
	ID    string `json:"id" doc:"The replay's id: GET /v1/events/replay/{id} tells how far it has come."`
	JobID string `json:"job_id" doc:"The job's id: GET /v1/jobs/{job_id} tells where it stands, and the result."`
	Queue string `json:"queue" example:"default"`
}

type replayOutput struct {
	Location string `header:"Location" doc:"Where the job's status is."`
	Replayed string `header:"Idempotent-Replayed" doc:"true: the answer is the one that the first request with this Idempotency-Key got."`
	Body     StartedReplay
}

func (e *enqueuing) replayEvents(ctx context.Context, in *enqueueInput) (*replayOutput, error) {
	started, again, err := once(ctx, e.g, "replay-events", in.IdempotencyKey, e.startReplay)
	if err != nil {
		return nil, err
	}
	out := &replayOutput{Body: started, Location: StoredJob{ID: started.JobID, Queue: started.Queue}.location()}
	if again {
		out.Replayed = "true"
	}
	return out, nil
}

// startReplay stores the job.
func (e *enqueuing) startReplay(ctx context.Context, seed string) (StartedReplay, error) {
	ctx, cancel := e.g.bounded(ctx)
	defer cancel()
	r, p := decodeReplay(bodyOf(ctx))
	if p != nil {
		return StartedReplay{}, p
	}
	task, err := e.g.task(ctx, replayTask)
	if err != nil {
		return StartedReplay{}, err
	}
	if task == nil {
		return StartedReplay{}, problem.Unavailable("no worker serves "+replayTask+" yet: start one, then send it again", retryAfter)
	}
	id := seed
	if id == "" {
		id = uuid.NewString()
	}
	if r.ID == "" {
		r.ID = id
	}
	payload, err := json.Marshal(r)
	if err != nil {
		return StartedReplay{}, err
	}
	request, err := task.Request(payload, job.ID(id))
	if err != nil {
		return StartedReplay{}, refusal(http.StatusUnprocessableEntity, []problem.Fault{{Pointer: pointer(""), Detail: err.Error()}})
	}
	result := e.g.deps.Jobs.EnqueueMany(ctx, []job.Request{request})[0]
	started := StartedReplay{ID: r.ID, JobID: id, Queue: task.Defaults.Queue}
	if started.Queue == "" {
		started.Queue = job.DefaultQueue
	}
	// A duplicate is the job of this very request, stored before its answer was lost: nobody else has the id.
	if result.Err != nil && (!errors.Is(result.Err, job.ErrDuplicate) || errors.Is(result.Err, queue.ErrNotReplicated)) {
		return StartedReplay{}, e.g.outage(ctx, result.Err)
	}
	return started, nil
}

func decodeReplay(body []byte) (events.ReplayRequest, *problem.Problem) {
	var r events.ReplayRequest
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	err := d.Decode(&r)
	status := http.StatusUnprocessableEntity
	switch { // null, and the beginning of something else, would be a replay of everything
	case !json.Valid(body):
		status, err = http.StatusBadRequest, cmp.Or(err, errNoObject)
	case bytes.Equal(bytes.TrimSpace(body), []byte("null")):
		err = errNoObject
	}
	if err != nil {
		fault := problem.Fault{Pointer: pointer(""), Detail: strings.TrimPrefix(err.Error(), "json: ") + ": see the operation in /openapi.json"}
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			fault.Pointer = pointer("." + wrong.Field)
		}
		return r, refusal(status, []problem.Fault{fault})
	}
	if err := r.Validate(); err != nil {
		var faults []problem.Fault
		for line := range strings.SplitSeq(strings.TrimPrefix(err.Error(), events.ErrReplay.Error()+": "), "\n") {
			field, detail, _ := strings.Cut(line, ": ")
			faults = append(faults, problem.Fault{Pointer: pointer("." + field), Detail: detail})
		}
		return r, refusal(http.StatusUnprocessableEntity, faults)
	}
	return r, nil
}

var errNoObject = errors.New("it is not one JSON object")

type replayInput struct {
	ID string `path:"id" maxLength:"128" doc:"The replay's id."`
}

type progressOutput struct{ Body events.ReplayProgress }

func (g *Gateway) replayProgress(ctx context.Context, in *replayInput) (*progressOutput, error) {
	ctx, cancel := g.bounded(ctx)
	defer cancel()
	p, err := g.deps.Events.ReplayProgress(ctx, in.ID)
	switch {
	case errors.Is(err, events.ErrNotFound):
		return nil, problem.Of(http.StatusNotFound, "there is no such replay: it has not begun yet, or ended more than a week ago",
			problem.Fault{Parameter: "id", Detail: "it names no replay that is known"})
	case err != nil:
		return nil, g.eventsFailed(ctx, err)
	}
	return &progressOutput{Body: p}, nil
}
