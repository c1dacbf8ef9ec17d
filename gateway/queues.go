package gateway

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/gateway/guard"
	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/problem"
)

func (g *Gateway) queueRoutes() {
	operation(g, keys.Read, huma.Operation{
		OperationID: "list-queues", Method: http.MethodGet, Path: "/v1/queues", Tags: []string{"Queues"},
		Summary: "List the queues",
		Description: "Lists by name all queues that hold or have held jobs, and those that a live worker serves, with how many jobs they hold in each " +
			"state. A queue with pending jobs that nobody serves is worth a look.",
		Responses: map[string]*huma.Response{"200": g.jsonAnswer("The queues.", QueueList{})},
	}, g.listQueues)
	operation(g, keys.Admin, huma.Operation{
		OperationID: "list-undecodable-jobs", Method: http.MethodGet, Path: "/v1/queues/{name}/undecodable", Tags: []string{"Queues"},
		Summary: "List jobs whose message can't be decoded",
		Description: "Lists the jobs of a queue that were set aside, the oldest first, with what Redis holds in place of their messages. They don't run, and are " +
			"kept until they are deleted. It needs the scope admin, for what is shown may hold anything.",
		Responses: map[string]*huma.Response{"200": g.jsonAnswer("A page of jobs.", UndecodablePage{})},
		Errors:    []int{http.StatusNotFound},
	}, g.listUndecodable)
	operation(g, keys.Admin, huma.Operation{
		OperationID: "delete-undecodable-job", Method: http.MethodDelete, Path: "/v1/queues/{name}/undecodable/{id}", Tags: []string{"Queues"},
		Summary:       "Delete a job whose message can't be decoded",
		Description:   "Deletes a job that was set aside, and what it locks. A job of this id in any other state is left alone.",
		DefaultStatus: http.StatusNoContent,
		Responses:     map[string]*huma.Response{"204": {Description: "It is gone."}},
		Errors:        []int{http.StatusNotFound},
	}, g.deleteUndecodable)
}

// QueueList is all queues.
type QueueList struct {
	Queues []QueueState `json:"queues" nullable:"false"`
}

// QueueState is a queue and what it holds.
type QueueState struct {
	Name        string `json:"name" example:"default"`
	Pending     int64  `json:"pending" doc:"Jobs that run next."`
	Active      int64  `json:"active" doc:"Jobs that run, or whose worker has died and was not found out yet."`
	Scheduled   int64  `json:"scheduled" doc:"Jobs that wait for their time."`
	Retry       int64  `json:"retry" doc:"Jobs that failed and will be tried again, and those that were put off."`
	Dead        int64  `json:"dead" doc:"Jobs that failed for good, and are kept."`
	Completed   int64  `json:"completed" doc:"Jobs that succeeded, and are kept for a while."`
	Undecodable int64  `json:"undecodable" doc:"Jobs that were set aside, as their message can't be decoded: GET /v1/queues/{name}/undecodable shows them."`
	Paused      bool   `json:"paused" doc:"No worker takes jobs from it until it is resumed."`
	Served      bool   `json:"served" doc:"A live worker takes jobs from it."`
	Workers     int    `json:"workers" doc:"How many do."`
}

// UndecodablePage is a page of a listing.
type UndecodablePage struct {
	Jobs []UndecodableJob `json:"jobs" nullable:"false"`
	Next string           `json:"next,omitempty" doc:"The cursor of the next page; missing on the last one."`
}

// UndecodableJob is a job whose message can't be decoded.
type UndecodableJob struct {
	ID      string    `json:"id"`
	At      time.Time `json:"at" doc:"When it was set aside."`
	Size    int       `json:"size" doc:"Length of the message in bytes; -1: there is none any more."`
	Message []byte    `json:"message" doc:"The message as Redis holds it, its first 16 KiB, in base64."`
	Cut     bool      `json:"cut,omitempty" doc:"The message is longer than what is shown."`
}

type listQueuesOutput struct{ Body QueueList }

func (g *Gateway) listQueues(ctx context.Context, _ *struct{}) (*listQueuesOutput, error) {
	bounded, cancel := g.bounded(ctx)
	defer cancel()
	queues, err := g.deps.Fleet.Queues(bounded)
	if err != nil {
		return nil, g.outage(ctx, err)
	}
	out := &listQueuesOutput{Body: QueueList{Queues: make([]QueueState, len(queues))}}
	for i, q := range queues {
		out.Body.Queues[i] = QueueState{
			Name: q.Name, Pending: q.Pending, Active: q.Active, Scheduled: q.Scheduled, Retry: q.Retry, Dead: q.Dead, Completed: q.Completed,
			Undecodable: q.Undecodable, Paused: q.Paused, Served: q.Workers > 0, Workers: q.Workers,
		}
	}
	return out, nil
}

type listUndecodableInput struct {
	Name   string `path:"name" maxLength:"255" example:"default" doc:"The queue's name."`
	Cursor string `query:"cursor" maxLength:"1000" doc:"next of the page before."`
	Limit  int    `query:"limit" minimum:"1" doc:"The most jobs of a page. Default 50 unless configured otherwise, at most 100."`
}

type listUndecodableOutput struct{ Body UndecodablePage }

// maxUndecodablePage bounds an answer to some megabytes.
const maxUndecodablePage = 100

func (g *Gateway) listUndecodable(ctx context.Context, in *listUndecodableInput) (*listUndecodableOutput, error) {
	limit, err := g.limit(in.Limit, min(maxUndecodablePage, g.cfg.MaxPageSize))
	if err != nil {
		return nil, err
	}
	bounded, cancel := g.bounded(ctx)
	defer cancel()
	page, next, err := g.deps.Fleet.Undecodable(bounded, in.Name, in.Cursor, limit)
	switch {
	case errors.Is(err, fleet.ErrCursor):
		return nil, refusal(http.StatusUnprocessableEntity, []problem.Fault{{Parameter: "cursor", Detail: "it is none that a page has given: leave it out to begin"}})
	case err != nil:
		return nil, g.outage(ctx, err)
	case len(page) == 0:
		known, err := g.deps.Fleet.HasQueue(bounded, in.Name)
		if err != nil {
			return nil, g.outage(ctx, err)
		}
		if !known {
			return nil, problem.New(http.StatusNotFound, "unknown-queue", "Unknown queue", "no queue of this name holds or has held jobs; GET /v1/queues lists them",
				problem.Fault{Parameter: "name", Detail: "there is no queue of this name"})
		}
	}
	out := &listUndecodableOutput{Body: UndecodablePage{Jobs: make([]UndecodableJob, len(page)), Next: next}}
	for i, u := range page {
		out.Body.Jobs[i] = UndecodableJob{ID: u.ID, At: u.At.UTC(), Size: u.Size, Message: u.Message, Cut: u.Size > len(u.Message)}
	}
	return out, nil
}

type deleteUndecodableInput struct {
	Name string `path:"name" maxLength:"255" example:"default" doc:"The queue's name."`
	ID   string `path:"id" maxLength:"1000" doc:"The job's id."`
}

func (g *Gateway) deleteUndecodable(ctx context.Context, in *deleteUndecodableInput) (*struct{}, error) {
	bounded, cancel := g.bounded(ctx)
	defer cancel()
	err := g.deps.Fleet.RemoveUndecodable(bounded, in.Name, in.ID)
	switch {
	case errors.Is(err, fleet.ErrNoJob):
		return nil, problem.New(http.StatusNotFound, "no-such-job", "No such job", "no job of this id is set aside in this queue",
			problem.Fault{Parameter: "id", Detail: "no undecodable job has it"})
	case err != nil:
		return nil, g.outage(ctx, err)
	}
	g.log.InfoContext(ctx, "undecodable job deleted", "queue", in.Name, "job", in.ID, "key", caller(ctx), "request_id", guard.RequestID(ctx))
	return nil, nil
}
