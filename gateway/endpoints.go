package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/bellhop-dev/bellhop/endpoints"
	"github.com/bellhop-dev/bellhop/gateway/guard"
	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/problem"
)

func (g *Gateway) endpointRoutes() {
	if g.deps.Endpoints == nil {
		return
	}
	operation(g, keys.Read, huma.Operation{
		OperationID: "list-endpoints", Method: http.MethodGet, Path: "/v1/endpoints", Tags: []string{"Endpoints"},
		Summary: "List the endpoints of outgoing webhooks",
		Description: "Lists, by name, the endpoints that webhooks were delivered to lately, and those that are switched off: which of them answer, which " +
			"are given a rest, and why one is off. An endpoint that is configured but was never called is not among them.",
		Responses: map[string]*huma.Response{"200": g.jsonAnswer("A page of endpoints.", EndpointPage{})},
	}, g.listEndpoints)
	operation(g, keys.Read, huma.Operation{
		OperationID: "get-endpoint", Method: http.MethodGet, Path: "/v1/endpoints/{name}", Tags: []string{"Endpoints"},
		Summary:     "Show an endpoint",
		Description: "Shows what the fleet knows of an endpoint and, with attempts, how the last calls of it went. Nothing of what was sent is kept of them.",
		Responses:   map[string]*huma.Response{"200": g.jsonAnswer("The endpoint.", EndpointState{})},
		Errors:      []int{http.StatusNotFound},
	}, g.showEndpoint)
	operation(g, keys.Admin, huma.Operation{
		OperationID: "disable-endpoint", Method: http.MethodPost, Path: "/v1/endpoints/{name}/disable", Tags: []string{"Endpoints"},
		Summary: "Switch an endpoint off",
		Description: "Switches an endpoint off, for all workers, until it is switched on: deliveries to it end at once, as dead jobs that name the reason. " +
			"Calls that are on their way go on. Of one that is off already, the reason changes.",
		RequestBody: g.jsonBody(EndpointSwitch{}, EndpointSwitch{Reason: "its owner moves house until Monday"}),
		Responses:   map[string]*huma.Response{"200": g.jsonAnswer("The endpoint as it is now.", EndpointState{})},
		Errors:      []int{http.StatusNotFound},
	}, g.disableEndpoint)
	operation(g, keys.Admin, huma.Operation{
		OperationID: "enable-endpoint", Method: http.MethodPost, Path: "/v1/endpoints/{name}/enable", Tags: []string{"Endpoints"},
		Summary: "Switch an endpoint on",
		Description: "Switches an endpoint on, with a closed circuit: whatever kept it from being called is forgotten. What ended meanwhile stays among " +
			"the dead jobs until it is run again. One that is disabled in the workers' configuration has to be enabled there.",
		Responses: map[string]*huma.Response{"200": g.jsonAnswer("The endpoint as it is now.", EndpointState{})},
		Errors:    []int{http.StatusNotFound},
	}, g.enableEndpoint)
}

// EndpointPage is a page of a listing.
type EndpointPage struct {
	Endpoints []EndpointState `json:"endpoints" nullable:"false"`
	Next      string          `json:"next,omitempty" doc:"The cursor of the next page; missing on the last one."`
}

// EndpointState is what the fleet knows of an endpoint.
type EndpointState struct {
	Name  string `json:"name" example:"shop" doc:"As it is configured; of an address that a job brought along, url: and a hash."`
	Host  string `json:"host,omitempty" example:"https://shop.example" doc:"Scheme and host of its address."`
	State string `json:"state" enum:"closed,open,probing,disabled" doc:"closed: it is called. open: its circuit is, it is not called until next_probe. probing: the next call, or one that runs, finds out whether it is back. disabled: switched off."`

	Reason string    `json:"reason,omitempty" doc:"Why it is switched off."`
	Since  time.Time `json:"since,omitzero" doc:"When it was switched off."`

	Failures    int       `json:"failures" doc:"How many calls in a row failed."`
	NextProbe   time.Time `json:"next_probe,omitzero" doc:"When an open circuit lets a call through."`
	PausedUntil time.Time `json:"paused_until,omitzero" doc:"Until when the endpoint itself asked to be left alone."`
	LastSuccess time.Time `json:"last_success,omitzero" doc:"When a call last ended well."`
	LastFailure time.Time `json:"last_failure,omitzero" doc:"When a call last failed."`

	Running   int64 `json:"running" doc:"Calls that run now, of the whole fleet."`
	Delivered int64 `json:"delivered" doc:"Calls that ended well, since it is known."`
	Failed    int64 `json:"failed" doc:"Calls that failed, since it is known."`

	Attempts []EndpointAttempt `json:"attempts,omitempty" doc:"The last calls, the newest first, if they were asked for."`
}

// EndpointAttempt is one call of an endpoint.
type EndpointAttempt struct {
	At         time.Time `json:"at" doc:"When it began."`
	Job        string    `json:"job" doc:"Id of the job."`
	Queue      string    `json:"queue" example:"default" doc:"Queue of the job."`
	Message    string    `json:"message" doc:"The webhook-id, the same in all attempts of the job."`
	Attempt    int       `json:"attempt" doc:"Which of the job's attempts it was, from 1."`
	DurationMS int64     `json:"duration_ms" doc:"How long it took, in milliseconds."`
	Status     int       `json:"status,omitempty" example:"503" doc:"HTTP status of the answer; absent if there was none."`
	Error      string    `json:"error,omitempty" doc:"Why there was no answer."`
	Answer     string    `json:"answer,omitempty" doc:"The beginning of an answer that was no success, without what the call itself had sent."`
}

// EndpointSwitch says why an endpoint is switched off.
type EndpointSwitch struct {
	Reason string `json:"reason" minLength:"1" maxLength:"500" example:"its owner moves house until Monday" doc:"Why; it is shown with the endpoint and in the error of each delivery that ends for it."`
}

func stateOfEndpoint(s endpoints.State) EndpointState {
	return EndpointState{
		Name: s.Endpoint, Host: s.Label, State: s.Status, Reason: s.Reason, Since: s.Since, Failures: s.Failures, NextProbe: s.NextProbe,
		PausedUntil: s.PausedUntil, LastSuccess: s.DeliveredAt, LastFailure: s.FailedAt, Running: s.Running, Delivered: s.Delivered, Failed: s.Failed,
	}
}

type listEndpointsInput struct {
	State  string `query:"state" enum:"closed,open,probing,disabled" doc:"Only endpoints in this state."`
	Cursor string `query:"cursor" maxLength:"128" doc:"next of the page before."`
	Limit  int    `query:"limit" minimum:"1" doc:"The most endpoints of a page. Default 50 and at most 500, unless configured otherwise."`
}

type listEndpointsOutput struct{ Body EndpointPage }

func (g *Gateway) listEndpoints(ctx context.Context, in *listEndpointsInput) (*listEndpointsOutput, error) {
	limit, err := g.limit(in.Limit, g.cfg.MaxPageSize)
	if err != nil {
		return nil, err
	}
	bounded, cancel := g.bounded(ctx)
	defer cancel()
	states, more, err := g.deps.Endpoints.Page(bounded, in.Cursor, in.State, limit)
	if err != nil {
		return nil, g.outage(ctx, err)
	}
	out := &listEndpointsOutput{Body: EndpointPage{Endpoints: make([]EndpointState, len(states))}}
	for i, s := range states {
		out.Body.Endpoints[i] = stateOfEndpoint(s)
	}
	if more {
		out.Body.Next = states[len(states)-1].Endpoint
	}
	return out, nil
}

// limit is the size of a page, as it was asked for or by default.
func (g *Gateway) limit(asked, most int) (int, error) {
	switch {
	case asked == 0:
		return min(g.cfg.PageSize, most), nil
	case asked > most:
		return 0, refusal(http.StatusUnprocessableEntity, []problem.Fault{{
			Parameter: "limit", Detail: fmt.Sprintf("is %d, at most %d are given at once: go on with the cursor", asked, most),
		}})
	}
	return asked, nil
}

// EndpointRef names an endpoint in a path.
type EndpointRef struct {
	Name string `path:"name" maxLength:"128" pattern:"^[A-Za-z0-9._:-]+$" patternDescription:"a name of letters, digits and . _ : -" example:"shop" doc:"The endpoint's name."`
}

type showEndpointInput struct {
	EndpointRef
	Attempts int `query:"attempts" minimum:"0" maximum:"1000" doc:"How many of the last calls to show, the newest first. As many are kept as the workers are configured to, 50 by default."`
}

type endpointOutput struct{ Body EndpointState }

func (g *Gateway) showEndpoint(ctx context.Context, in *showEndpointInput) (*endpointOutput, error) {
	ctx, cancel := g.bounded(ctx)
	defer cancel()
	out, err := g.endpoint(ctx, in.Name)
	if err != nil || in.Attempts == 0 {
		return out, err
	}
	attempts, err := g.deps.Endpoints.Attempts(ctx, in.Name, in.Attempts)
	if err != nil {
		return nil, g.outage(ctx, err)
	}
	for _, a := range attempts {
		out.Body.Attempts = append(out.Body.Attempts, EndpointAttempt{
			At: a.At, Job: a.Job, Queue: a.Queue, Message: a.Message, Attempt: a.Number, DurationMS: a.DurationMS, Status: a.Status,
			Error: a.Error, Answer: a.Answer,
		})
	}
	return out, nil
}

// endpoint is the one of that name; there is a problem if nothing is known of it.
func (g *Gateway) endpoint(ctx context.Context, name string) (*endpointOutput, error) {
	s, err := g.deps.Endpoints.State(ctx, name)
	switch {
	case err != nil:
		return nil, g.outage(ctx, err)
	case !s.Known:
		return nil, problem.New(http.StatusNotFound, "unknown-endpoint", "Unknown endpoint",
			"nothing is known of an endpoint of this name: it was never called, or not for a long time; GET /v1/endpoints lists those that were",
			problem.Fault{Parameter: "name", Detail: "no endpoint of this name is known"})
	}
	return &endpointOutput{Body: stateOfEndpoint(s)}, nil
}

func (g *Gateway) disableEndpoint(ctx context.Context, in *EndpointRef) (*endpointOutput, error) {
	ctx, cancel := g.bounded(ctx)
	defer cancel()
	asked, err := decoded[EndpointSwitch](g, bodyOf(ctx))
	if err != nil {
		return nil, err
	}
	reason := strings.TrimSpace(asked.Reason)
	if reason == "" {
		return nil, refusal(http.StatusUnprocessableEntity, []problem.Fault{{Pointer: "#/reason", Detail: "it is blank: say why, for those who find it so"}})
	}
	if _, err := g.endpoint(ctx, in.Name); err != nil {
		return nil, err
	}
	if _, err := g.deps.Endpoints.Disable(ctx, in.Name, reason); err != nil {
		return nil, g.outage(ctx, err)
	}
	g.log.InfoContext(ctx, "webhook endpoint switched off", "endpoint", in.Name, "key", caller(ctx), "request_id", guard.RequestID(ctx))
	return g.endpoint(ctx, in.Name)
}

func (g *Gateway) enableEndpoint(ctx context.Context, in *EndpointRef) (*endpointOutput, error) {
	ctx, cancel := g.bounded(ctx)
	defer cancel()
	if _, err := g.endpoint(ctx, in.Name); err != nil {
		return nil, err
	}
	if _, err := g.deps.Endpoints.Enable(ctx, in.Name); err != nil {
		return nil, g.outage(ctx, err)
	}
	g.log.InfoContext(ctx, "webhook endpoint switched on", "endpoint", in.Name, "key", caller(ctx), "request_id", guard.RequestID(ctx))
	return g.endpoint(ctx, in.Name)
}

// caller is the id of the request's key, for the log: the state itself does not say who switched.
func caller(ctx context.Context) string {
	key, _ := keys.FromContext(ctx)
	return key.ID
}

// decoded reads a body of JSON that must fit the schema of T; the error is the problem that names each fault.
func decoded[T any](g *Gateway, data []byte) (T, error) {
	var value any
	var v T
	if err := unmarshal(data, &value); err != nil {
		return v, refusal(http.StatusBadRequest, []problem.Fault{{Pointer: "#", Detail: err.Error()}})
	}
	d := jobDecoder{registry: g.api.OpenAPI().Components.Schemas, schema: g.schemaOf(v)}
	result := new(huma.ValidateResult)
	huma.Validate(d.registry, d.schema, huma.NewPathBuffer([]byte{}, 0), huma.ModeWriteToServer, value, result)
	var faults []problem.Fault
	for _, err := range result.Errors {
		faults = append(faults, d.explain(err))
	}
	if len(faults) == 0 {
		if err := json.Unmarshal(data, &v); err != nil {
			faults = append(faults, problem.Fault{Pointer: "#", Detail: err.Error()})
		}
	}
	if len(faults) > 0 {
		return v, refusal(http.StatusUnprocessableEntity, faults)
	}
	return v, nil
}
