package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/problem"
	"github.com/bellhop-dev/bellhop/triggers"
)

func (g *Gateway) triggerRoutes() {
	if g.deps.Triggers == nil {
		return
	}
	answer := func(description string) map[string]*huma.Response {
		return map[string]*huma.Response{"200": g.jsonAnswer(description, TriggerState{})}
	}
	operation(g, keys.Read, huma.Operation{
		OperationID: "list-triggers", Method: http.MethodGet, Path: "/v1/triggers", Tags: []string{"Triggers"},
		Summary: "List the triggers",
		Description: "Lists the triggers of all origins by name: those made here, and those of the files and the code of the running workers. " +
			"It tells which fire, and the workers with what keeps them from running what they should. What workers report is some seconds old at most.",
		Responses: map[string]*huma.Response{"200": g.jsonAnswer("The triggers and the workers.", TriggerOverview{})},
	}, g.listTriggers)
	operation(g, keys.Read, huma.Operation{
		OperationID: "get-trigger", Method: http.MethodGet, Path: "/v1/triggers/{name}", Tags: []string{"Triggers"},
		Summary: "Show a trigger", Description: "Shows a trigger and where it stands; with its definition, if it was made here. The ETag is its revision, for If-Match.",
		Responses: answer("The trigger."), Errors: []int{http.StatusNotFound},
	}, g.showTrigger)
	operation(g, keys.Admin, huma.Operation{
		OperationID: "put-trigger", Method: http.MethodPut, Path: "/v1/triggers/{name}", Tags: []string{"Triggers"},
		Summary: "Make or change a trigger",
		Description: "Makes a trigger, or replaces the one of this name. It is checked as a file's is, and every fault is told. Workers run it within a second. " +
			"With If-Match it is changed only if nobody else has changed it meanwhile; with `If-None-Match: *` only if there is none.",
		RequestBody: g.jsonBody(TriggerDefinition{}, json.RawMessage(
			`{"name":"triage-inbox","on":"com.acme.email.received","when":"event.data.folder == \"INBOX\"","run":"http:request","with":{"method":"POST","url":"http://agents.internal/triage","json":{"message":"${event.data.id}"}},"max_retry":8}`)),
		Responses: map[string]*huma.Response{
			"200": g.jsonAnswer("It is changed.", TriggerState{}),
			"201": g.jsonAnswer("It is made.", TriggerState{}),
		},
		Errors: []int{http.StatusConflict, http.StatusPreconditionFailed},
	}, g.putTrigger)
	operation(g, keys.Admin, huma.Operation{
		OperationID: "delete-trigger", Method: http.MethodDelete, Path: "/v1/triggers/{name}", Tags: []string{"Triggers"},
		Summary: "Delete a trigger", Description: "Deletes a trigger that was made here. One of a file or of code can be disabled, not deleted.",
		DefaultStatus: http.StatusNoContent,
		Responses:     map[string]*huma.Response{"204": {Description: "It is gone."}},
		Errors:        []int{http.StatusNotFound, http.StatusConflict, http.StatusPreconditionFailed},
	}, g.deleteTrigger)
	for _, s := range []struct {
		on                         bool
		verb, summary, description string
	}{
		{false, "disable", "Switch a trigger off", "Switches a trigger off, wherever it stands: it stays, and doesn't fire. For one of a file or of code the switch outlives restarts and edits of the file."},
		{true, "enable", "Switch a trigger on", "Switches a trigger on. One that is disabled in its file or code has to be enabled there."},
	} {
		operation(g, keys.Admin, huma.Operation{
			OperationID: s.verb + "-trigger", Method: http.MethodPost, Path: "/v1/triggers/{name}/" + s.verb, Tags: []string{"Triggers"},
			Summary: s.summary, Description: s.description, Responses: answer("The trigger as it is now."),
			Errors: []int{http.StatusNotFound, http.StatusConflict, http.StatusPreconditionFailed},
		}, func(ctx context.Context, in *triggerChangeInput) (*triggerOutput, error) {
			return g.switchTrigger(ctx, in, s.on)
		})
	}
	operation(g, keys.Admin, huma.Operation{
		OperationID: "try-trigger", Method: http.MethodPost, Path: "/v1/triggers/try", Tags: []string{"Triggers"},
		Summary: "Try a trigger on an event",
		Description: "Tells what a trigger would make of an event: whether it matches, or why not, the payload, and the job. Nothing is enqueued. " +
			"The trigger is given in the body or by the name of one that was made here; the event is given too, or is a past one by its place on the stream.",
		RequestBody: g.jsonBody(TryRequest{}, json.RawMessage(
			`{"name":"triage-inbox","event":{"specversion":"1.0","id":"e1","source":"/mail","type":"com.acme.email.received","data":{"folder":"INBOX","id":"m1"}}}`)),
		Responses: map[string]*huma.Response{"200": g.jsonAnswer("What would happen.", TryAnswer{})},
		Errors:    []int{http.StatusNotFound},
	}, g.tryTrigger)
}

// TriggerDefinition is a trigger as in a file, see docs/triggers.md. It only describes: triggers.ParseJSON reads.
type TriggerDefinition struct {
	Name      string          `json:"name,omitempty" maxLength:"128" example:"triage-inbox" doc:"Must be the name in the path, or left out."`
	On        string          `json:"on" example:"com.acme.email.*" doc:"Pattern of event types: * is one segment, ** at the end one or more."`
	When      string          `json:"when,omitempty" example:"event.data.folder == \"INBOX\"" doc:"Filter in CEL; left out, every event passes."`
	Run       string          `json:"run" example:"http:request" doc:"Name of the task; GET /v1/tasks lists them."`
	With      json.RawMessage `json:"with,omitempty" doc:"The payload, with ${CEL} in its texts; left out, the event's data as it is."`
	Queue     string          `json:"queue,omitempty" doc:"Queue of the jobs, instead of the task's; so with what follows."`
	In        string          `json:"in,omitempty" example:"10m" doc:"How much later than the match a job starts."`
	MaxRetry  *int            `json:"max_retry,omitempty" minimum:"0"`
	Timeout   string          `json:"timeout,omitempty" example:"30s" doc:"Of one attempt."`
	Retention string          `json:"retention,omitempty" example:"24h" doc:"How long a finished job is kept."`
	Unique    string          `json:"unique,omitempty" example:"1h" doc:"Refuse an equal job while one lives, for this time at most."`
	Disabled  bool            `json:"disabled,omitempty" doc:"It is checked, but doesn't fire."`
}

// TriggerState is a trigger and where it stands.
type TriggerState struct {
	Name   string `json:"name" example:"triage-inbox"`
	Origin string `json:"origin,omitempty" enum:"api,file,code" doc:"Where it is defined; absent if nothing but a switch is left of it."`
	Place  string `json:"place,omitempty" example:"triggers.yaml:3" doc:"File and line of one that is defined in a file."`
	On     string `json:"on,omitempty" example:"com.acme.email.*"`
	Run    string `json:"run,omitempty" example:"http:request"`
	State  string `json:"state" enum:"active,disabled,faulty,pending,gone" doc:"active: it fires. disabled: its definition or a switch has it off. faulty: a worker can't run it, see faults. pending: no worker runs it yet. gone: only a switch is left."`

	SwitchedOff bool `json:"switched_off,omitempty" doc:"It was switched off here."`
	// Of the last change here.
	Revision int64     `json:"revision,omitempty" doc:"Of the last change made here; the ETag."`
	Created  time.Time `json:"created,omitzero"`
	Changed  time.Time `json:"changed,omitzero"`
	By       string    `json:"by,omitempty" doc:"Name of the API key that made the last change."`
	Note     string    `json:"note,omitempty" doc:"What was said of the last change."`

	Workers    int                `json:"workers" doc:"How many workers run it as it is now."`
	Faults     []string           `json:"faults,omitempty" doc:"Which worker leaves it out, and why."`
	Counters   TriggerCounters    `json:"counters" doc:"Of all running workers, each since it began."`
	Definition *TriggerDefinition `json:"definition,omitempty" doc:"Of one that was made here."`
}

// TriggerCounters are what became of events.
type TriggerCounters struct {
	Matches    uint64 `json:"matches" doc:"Events that passed the pattern and the filter."`
	Jobs       uint64 `json:"jobs"`
	Duplicates uint64 `json:"duplicates" doc:"Matches that had a job already."`
	Absent     uint64 `json:"absent" doc:"Events without a field that the filter names: no match."`
	Dead       uint64 `json:"dead" doc:"Matches that failed for good."`
}

// TriggerOverview is all triggers, and the workers that run them.
type TriggerOverview struct {
	Triggers []TriggerState  `json:"triggers"`
	Workers  []TriggerWorker `json:"workers"`
}

// TriggerWorker is a process that turns events into jobs.
type TriggerWorker struct {
	ID          string    `json:"id"`
	Host        string    `json:"host"`
	PID         int       `json:"pid"`
	Started     time.Time `json:"started"`
	Revision    int64     `json:"revision" doc:"The newest change made here that it runs."`
	Faults      []string  `json:"faults,omitempty" doc:"What is wrong with its files: it runs the rules of before."`
	FaultsSince time.Time `json:"faults_since,omitzero"`
	Idle        bool      `json:"idle,omitempty" doc:"It takes no events: it has no rules, or others have rules that it hasn't."`
	StoreGone   bool      `json:"store_gone,omitempty" doc:"What was made here is gone from Redis; it runs the rules of before."`
	More        int       `json:"more,omitempty" doc:"Triggers of its files that are not listed, as there are too many."`
}

func stateOfTrigger(l triggers.Listed) (TriggerState, error) {
	s := TriggerState{
		Name: l.Name, Origin: l.Origin, Place: l.Place, On: l.On, Run: l.Run, State: l.State, SwitchedOff: l.Off,
		Workers: l.Processes, Faults: l.Faults, Counters: TriggerCounters(l.Stats),
	}
	if l.Stored == nil {
		return s, nil
	}
	s.Revision, s.Created, s.Changed, s.By, s.Note = l.Stored.Revision, l.Stored.Created, l.Stored.Changed, l.Stored.By, l.Stored.Note
	if l.Origin != triggers.OriginAPI || l.Stored.Trigger == nil {
		return s, nil
	}
	text, err := json.Marshal(l.Stored.Trigger)
	if err == nil {
		s.Definition = new(TriggerDefinition)
		err = json.Unmarshal(text, s.Definition)
	}
	return s, err
}

type triggerOverviewOutput struct {
	Body TriggerOverview
}

func (g *Gateway) listTriggers(ctx context.Context, _ *struct{}) (*triggerOverviewOutput, error) {
	bounded, cancel := g.bounded(ctx)
	defer cancel()
	all, err := g.deps.Triggers.Overview(bounded)
	if err != nil {
		return nil, g.outage(ctx, err)
	}
	out := &triggerOverviewOutput{Body: TriggerOverview{Triggers: []TriggerState{}, Workers: []TriggerWorker{}}}
	for _, l := range all.Triggers {
		s, err := stateOfTrigger(l)
		if err != nil {
			return nil, err
		}
		s.Definition = nil // a thousand of them may be large
		out.Body.Triggers = append(out.Body.Triggers, s)
	}
	for _, p := range all.Processes {
		out.Body.Workers = append(out.Body.Workers, TriggerWorker{
			ID: p.ID, Host: p.Host, PID: p.PID, Started: p.Started, Revision: p.Revision, Faults: p.Faults, FaultsSince: p.FaultsSince,
			Idle: p.Idle, StoreGone: p.StoreGone, More: p.More,
		})
	}
	return out, nil
}

type triggerInput struct {
	Name string `path:"name" maxLength:"128" example:"triage-inbox" doc:"The trigger's name."`
}

type triggerOutput struct {
	Status int
	ETag   string `header:"ETag" doc:"The revision of what was stored here, for If-Match."`
	Body   TriggerState
}

func (g *Gateway) showTrigger(ctx context.Context, in *triggerInput) (*triggerOutput, error) {
	bounded, cancel := g.bounded(ctx)
	defer cancel()
	return g.trigger(bounded, in.Name, http.StatusOK)
}

func (g *Gateway) trigger(ctx context.Context, name string, status int) (*triggerOutput, error) {
	l, err := g.deps.Triggers.Lookup(ctx, name)
	if err != nil {
		return nil, g.triggerProblem(ctx, err)
	}
	out := &triggerOutput{Status: status}
	if out.Body, err = stateOfTrigger(l); err != nil {
		return nil, err
	}
	if out.Body.Revision > 0 {
		out.ETag = etag(out.Body.Revision)
	}
	return out, nil
}

func etag(revision int64) string { return `"` + strconv.FormatInt(revision, 10) + `"` }

type triggerChangeInput struct {
	Name        string `path:"name" maxLength:"128" example:"triage-inbox" doc:"The trigger's name."`
	IfMatch     string `header:"If-Match" example:"\"7\"" doc:"The revision that the trigger must have, as its ETag says it."`
	IfNoneMatch string `header:"If-None-Match" enum:"*" doc:"*: there must be no trigger of this name yet."`
	Note        string `query:"note" maxLength:"1000" doc:"What is to be said of the change; it is kept with the trigger."`
}

// change is what the request says of itself.
func (in *triggerChangeInput) change(ctx context.Context) (triggers.Change, error) {
	c := triggers.Change{Note: in.Note}
	if k, known := keys.FromContext(ctx); known {
		c.By = k.Name
		if c.By == "" || len(c.By) > 200 {
			c.By = k.ID
		}
	}
	switch {
	case in.IfMatch != "" && in.IfNoneMatch != "":
		return c, refusal(http.StatusUnprocessableEntity, []problem.Fault{{Header: "If-Match", Detail: "If-Match and If-None-Match exclude each other: leave one of them out"}})
	case in.IfNoneMatch != "":
		c.Revision = triggers.None
	case in.IfMatch != "":
		revision, err := strconv.ParseInt(strings.Trim(in.IfMatch, `"`), 10, 64)
		if err != nil || revision <= 0 || in.IfMatch != etag(revision) {
			return c, refusal(http.StatusUnprocessableEntity, []problem.Fault{{Header: "If-Match", Detail: `it is no revision: send the ETag of the trigger, such as "7"`}})
		}
		c.Revision = revision
	}
	return c, nil
}

func (g *Gateway) putTrigger(ctx context.Context, in *triggerChangeInput) (*triggerOutput, error) {
	ctx, cancel := g.bounded(ctx)
	defer cancel()
	c, err := in.change(ctx)
	if err != nil {
		return nil, err
	}
	data := bodyOf(ctx)
	if len(data) > triggers.MaxTriggerBytes {
		return nil, problem.Of(http.StatusRequestEntityTooLarge, fmt.Sprintf("a trigger has %d bytes at most: pass a reference instead of the content", triggers.MaxTriggerBytes))
	}
	t, err := triggers.ParseJSON(data)
	switch {
	case err != nil:
		return nil, triggerFaults(statusOf(data), "", err)
	case t.Name == "":
		t.Name = in.Name
	case t.Name != in.Name:
		return nil, refusal(http.StatusUnprocessableEntity, []problem.Fault{{Pointer: "#/name", Detail: fmt.Sprintf("it must be %q, as in the path, or left out", in.Name)}})
	}
	stored, err := g.deps.Triggers.Put(ctx, t, c)
	if err != nil {
		return nil, g.triggerProblem(ctx, err)
	}
	status := http.StatusOK
	if stored.Created.Equal(stored.Changed) {
		status = http.StatusCreated
	}
	return g.changed(ctx, stored, status)
}

// changed answers with what was just stored. What workers say of it is added if Redis tells it: the change stands either way.
func (g *Gateway) changed(ctx context.Context, stored triggers.Stored, status int) (*triggerOutput, error) {
	l, err := g.deps.Triggers.Lookup(ctx, stored.Name)
	if err != nil {
		l = triggers.Listed{Effective: triggers.Effective{Name: stored.Name, Off: stored.Off}, State: triggers.StatePending, Stored: &stored}
		if t := stored.Trigger; t != nil {
			l.Origin, l.On, l.Run = triggers.OriginAPI, t.On, t.Run
		}
		if stored.Off {
			l.State = triggers.StateDisabled
		}
	}
	out := &triggerOutput{Status: status}
	if out.Body, err = stateOfTrigger(l); err != nil {
		return nil, err
	}
	if out.Body.Revision > 0 {
		out.ETag = etag(out.Body.Revision)
	}
	return out, nil
}

func (g *Gateway) deleteTrigger(ctx context.Context, in *triggerChangeInput) (*struct{}, error) {
	ctx, cancel := g.bounded(ctx)
	defer cancel()
	c, err := in.change(ctx)
	if err != nil {
		return nil, err
	}
	if err := g.deps.Triggers.Delete(ctx, in.Name, c); err != nil {
		return nil, g.triggerProblem(ctx, err)
	}
	return nil, nil
}

func (g *Gateway) switchTrigger(ctx context.Context, in *triggerChangeInput, on bool) (*triggerOutput, error) {
	ctx, cancel := g.bounded(ctx)
	defer cancel()
	c, err := in.change(ctx)
	if err != nil {
		return nil, err
	}
	stored, err := g.deps.Triggers.Switch(ctx, in.Name, on, c)
	if err != nil {
		return nil, g.triggerProblem(ctx, err)
	}
	return g.changed(ctx, stored, http.StatusOK)
}

// triggerProblem tells what the store refused.
func (g *Gateway) triggerProblem(ctx context.Context, err error) error {
	conflict := new(triggers.ConflictError)
	switch {
	case len(triggers.Faults(err)) > 0:
		return triggerFaults(http.StatusUnprocessableEntity, "", err)
	case errors.Is(err, triggers.ErrNotFound):
		return problem.New(http.StatusNotFound, "unknown-trigger", "Unknown trigger", err.Error()+"; GET /v1/triggers lists them",
			problem.Fault{Parameter: "name", Detail: "there is no trigger of this name"})
	case errors.As(err, &conflict):
		return problem.New(http.StatusPreconditionFailed, "changed-meanwhile", "The trigger was changed meanwhile", err.Error()+": GET it again, then decide",
			problem.Fault{Header: "If-Match", Detail: "the trigger has another revision"})
	case errors.Is(err, triggers.ErrReadOnly):
		return problem.New(http.StatusConflict, "read-only-trigger", "The trigger stands in a file or in code", err.Error())
	case errors.Is(err, triggers.ErrStoreFull):
		return problem.New(http.StatusConflict, "too-many-triggers", "Too many triggers", err.Error())
	}
	return g.outage(ctx, err)
}

// triggerFaults names each fault with its place below prefix, which is a JSON pointer.
func triggerFaults(status int, prefix string, err error) error {
	var faults []problem.Fault
	for _, f := range triggers.Faults(err) {
		faults = append(faults, problem.Fault{Pointer: "#" + prefix + f.Pointer(), Detail: f.Problem})
	}
	return refusal(status, faults)
}
