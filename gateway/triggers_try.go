package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/internal/problem"
	"github.com/bellhop-dev/bellhop/triggers"
)

// TryRequest asks what a trigger would make of an event.
type TryRequest struct {
	Name     string          `json:"name,omitempty" maxLength:"128" doc:"Name of a trigger that was made here; or give trigger."`
	Trigger  json.RawMessage `json:"trigger,omitempty" doc:"The trigger to try, as in PUT /v1/triggers/{name}; it need not be stored."`
	StreamID string          `json:"stream_id,omitempty" pattern:"^[0-9]{1,20}-[0-9]{1,20}$" example:"1767225600000-0" doc:"Place of a past event on the stream; or give event."`
	Event    json.RawMessage `json:"event,omitempty" doc:"The event, in the CloudEvents JSON format; it is not published."`
}

// TryAnswer is what would happen.
type TryAnswer struct {
	Matched bool            `json:"matched" doc:"Whether the trigger takes the event."`
	Reason  string          `json:"reason,omitempty" doc:"Why not; or that it is disabled."`
	Filter  *bool           `json:"filter,omitempty" doc:"What the filter gave; absent without one, or if it failed."`
	Payload json.RawMessage `json:"payload,omitempty" doc:"What the mapping gave, also if the task doesn't take it."`
	Error   string          `json:"error,omitempty" doc:"Why the match fails: it would leave a dead match."`
	Job     *TryJob         `json:"job,omitempty" doc:"The job that would be made."`
}

// TryJob is a job that was not made.
type TryJob struct {
	ID        string `json:"id,omitempty" doc:"Of an event that is on the stream."`
	Task      string `json:"task"`
	Queue     string `json:"queue"`
	In        string `json:"in,omitempty"`
	MaxRetry  int    `json:"max_retry"`
	Timeout   string `json:"timeout,omitempty"`
	Retention string `json:"retention,omitempty"`
	Unique    string `json:"unique,omitempty"`
}

type tryOutput struct {
	Body TryAnswer
}

func (g *Gateway) tryTrigger(ctx context.Context, _ *struct{}) (*tryOutput, error) {
	ctx, cancel := g.bounded(ctx)
	defer cancel()
	asked, err := g.decodeTry(bodyOf(ctx))
	if err != nil {
		return nil, err
	}
	t, err := g.triggerToTry(ctx, asked)
	if err != nil {
		return nil, err
	}
	e, err := g.eventToTry(ctx, asked)
	if err != nil {
		return nil, err
	}
	trial, err := g.deps.Triggers.Try(ctx, t, asked.StreamID, e)
	switch {
	case len(triggers.Faults(err)) > 0 && asked.Trigger != nil:
		return nil, triggerFaults(http.StatusUnprocessableEntity, "/trigger", err)
	case len(triggers.Faults(err)) > 0: // a stored one whose task is not known any more
		return nil, triggerFaults(http.StatusUnprocessableEntity, "/name", errors.Join(wholeFaults(err)...))
	case errors.Is(err, context.DeadlineExceeded):
		return nil, problem.Unavailable("the gateway had no time to evaluate it: try again", retryAfter)
	case err != nil:
		return nil, err
	}
	text, err := json.Marshal(trial)
	if err != nil {
		return nil, err
	}
	out := new(tryOutput)
	return out, json.Unmarshal(text, &out.Body)
}

// wholeFaults are faults of a trigger that is not in the request: their places are no places in it.
func wholeFaults(err error) []error {
	var whole []error
	for _, f := range triggers.Faults(err) {
		whole = append(whole, &triggers.Fault{Problem: "the stored trigger can't run: " + f.Error()})
	}
	return whole
}

func (g *Gateway) decodeTry(data []byte) (TryRequest, error) {
	asked, err := decoded[TryRequest](g, data)
	if err != nil {
		return asked, err
	}
	var faults []problem.Fault
	if (asked.Name == "") == (asked.Trigger == nil) {
		faults = append(faults, problem.Fault{Pointer: "#/trigger", Detail: "give one of name and trigger"})
	}
	if (asked.StreamID == "") == (asked.Event == nil) {
		faults = append(faults, problem.Fault{Pointer: "#/event", Detail: "give one of stream_id and event"})
	}
	if len(faults) > 0 {
		return TryRequest{}, refusal(http.StatusUnprocessableEntity, faults)
	}
	return asked, nil
}

func (g *Gateway) triggerToTry(ctx context.Context, asked TryRequest) (triggers.Trigger, error) {
	if asked.Trigger != nil {
		t, err := triggers.ParseJSON(asked.Trigger)
		if err != nil {
			return t, triggerFaults(http.StatusUnprocessableEntity, "/trigger", err)
		}
		if t.Name == "" {
			t.Name = "trial" // it has none yet
		}
		return t, nil
	}
	stored, err := g.deps.Triggers.Get(ctx, asked.Name)
	switch {
	case errors.Is(err, triggers.ErrNotFound) || err == nil && stored.Trigger == nil && stored.Fault == nil:
		detail := "no trigger of this name was made here: the definition of one in a file or in code has to be given as trigger"
		return triggers.Trigger{}, problem.New(http.StatusNotFound, "unknown-trigger", "Unknown trigger", detail, problem.Fault{Pointer: "#/name", Detail: detail})
	case err != nil:
		return triggers.Trigger{}, g.outage(ctx, err)
	case stored.Fault != nil:
		return triggers.Trigger{}, refusal(http.StatusUnprocessableEntity, []problem.Fault{{Pointer: "#/name", Detail: fmt.Sprintf("the stored trigger can't be read: %v", stored.Fault)}})
	}
	return *stored.Trigger, nil
}

func (g *Gateway) eventToTry(ctx context.Context, asked TryRequest) (*events.Event, error) {
	if asked.Event != nil {
		e, err := events.Decode(asked.Event)
		if err != nil {
			return nil, refusal(http.StatusUnprocessableEntity, []problem.Fault{{Pointer: "#/event", Detail: strings.ReplaceAll(err.Error(), "\n", "; ")}})
		}
		return e, nil
	}
	e, err := g.deps.Events.Get(ctx, asked.StreamID)
	switch {
	case errors.Is(err, events.ErrNotFound):
		detail := "there is no event at this place of the stream, or not any more"
		return nil, problem.New(http.StatusNotFound, "unknown-event", "Unknown event", detail, problem.Fault{Pointer: "#/stream_id", Detail: detail})
	case errors.Is(err, events.ErrInvalid):
		return nil, refusal(http.StatusUnprocessableEntity, []problem.Fault{{Pointer: "#/stream_id", Detail: "the event there can't be read: " + err.Error()}})
	case err != nil:
		return nil, g.outage(ctx, err)
	}
	return e, nil
}
