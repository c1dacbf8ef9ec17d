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

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/problem"
)

func (g *Gateway) listRoutes() {
	operation(g, keys.Read, huma.Operation{
		OperationID: "list-events", Method: http.MethodGet, Path: "/v1/events", Tags: []string{"Events"},
		Summary: "List events",
		Description: "Lists the events that are kept on the stream, the newest first unless order says otherwise. While next is there, more may follow: ask again " +
			"with it as cursor, and all else as it was. One request looks at some thousand events: with a filter that few fit, a page may be short, " +
			"even empty, and go on all the same.",
		Responses: map[string]*huma.Response{"200": g.jsonAnswer("A page of events.", EventPage{})},
	}, g.listEvents)
	operation(g, keys.Read, huma.Operation{
		OperationID: "get-event", Method: http.MethodGet, Path: "/v1/events/{stream_id}", Tags: []string{"Events"},
		Summary:     "Read an event",
		Description: "Reads the event at a place on the stream. It is gone, 404, once it was trimmed: some time after each durable group has handled it.",
		Responses:   map[string]*huma.Response{"200": g.jsonAnswer("The event.", StoredEvent{})},
		Errors:      []int{http.StatusNotFound},
	}, g.getEvent)
}

// StoredEvent is an event at its place.
type StoredEvent struct {
	StreamID string          `json:"stream_id" example:"1700000000000-0" doc:"Its place on the stream."`
	StoredAt time.Time       `json:"stored_at" doc:"When it was stored, by the clock of Redis."`
	Event    json.RawMessage `json:"event,omitempty" doc:"The CloudEvent, in its JSON form."`
	Fault    string          `json:"fault,omitempty" doc:"Why there is no event: what stands there is none."`
}

// EventPage is a page of a listing.
type EventPage struct {
	Events []StoredEvent `json:"events" nullable:"false"`
	Next   string        `json:"next,omitempty" doc:"The cursor of the next page; missing on the last one."`
}

func storedEvent(e events.Entry) StoredEvent {
	s := StoredEvent{StreamID: e.StreamID}
	ms, _, _ := strings.Cut(e.StreamID, "-")
	if n, err := strconv.ParseInt(ms, 10, 64); err == nil {
		s.StoredAt = time.UnixMilli(n).UTC()
	}
	switch {
	case e.Event != nil:
		s.Event = e.Event.AppendJSON(nil)
	case e.Err != nil:
		s.Fault = e.Err.Error()
	}
	return s
}

type listEventsInput struct {
	Type    string    `query:"type" maxLength:"512" example:"com.acme.email.*" doc:"Pattern of the event type: * is one segment, ** as the last one the rest."`
	Source  string    `query:"source" maxLength:"2048" doc:"Only events of this source."`
	Subject string    `query:"subject" maxLength:"4096" doc:"Only events of this subject."`
	Since   time.Time `query:"since" doc:"Stored at this time (RFC 3339) or later."`
	Until   time.Time `query:"until" doc:"Stored before this time (RFC 3339)."`
	Order   string    `query:"order" enum:"newest,oldest" default:"newest" doc:"What comes first."`
	Cursor  string    `query:"cursor" maxLength:"200" doc:"next of the page before."`
	Limit   int       `query:"limit" minimum:"1" maximum:"1000" doc:"The most events of a page. Default 50 and at most 500, unless configured otherwise."`
}

type listEventsOutput struct{ Body EventPage }

func (g *Gateway) listEvents(ctx context.Context, in *listEventsInput) (*listEventsOutput, error) {
	ctx, cancel := g.bounded(ctx)
	defer cancel()
	q := events.Query{
		Type: in.Type, Source: in.Source, Subject: in.Subject, Since: in.Since, Until: in.Until,
		NewestFirst: in.Order != "oldest", Cursor: in.Cursor, Limit: g.cfg.PageSize,
	}
	if in.Limit > 0 {
		q.Limit = in.Limit
	}
	if q.Limit > g.cfg.MaxPageSize {
		return nil, refusal(http.StatusUnprocessableEntity, []problem.Fault{{
			Parameter: "limit", Detail: fmt.Sprintf("is %d, at most %d are given at once: go on with the cursor", q.Limit, g.cfg.MaxPageSize),
		}})
	}
	q.Limit = min(q.Limit, maxEventPage)
	found, next, err := g.deps.Events.List(ctx, q)
	if err != nil {
		return nil, g.eventsRefused(ctx, err)
	}
	page := EventPage{Events: make([]StoredEvent, len(found)), Next: next}
	for i, e := range found {
		page.Events[i] = storedEvent(e)
	}
	return &listEventsOutput{Body: page}, nil
}

// maxEventPage is what the stream gives at once, however large the pages are configured.
const maxEventPage = 1000

// eventsRefused answers for a query that can't be, by naming its parameter, and for anything else.
func (g *Gateway) eventsRefused(ctx context.Context, err error) error {
	if !errors.Is(err, events.ErrQuery) {
		return g.eventsFailed(ctx, err)
	}
	name, detail, _ := strings.Cut(strings.TrimPrefix(err.Error(), events.ErrQuery.Error()+": "), ": ")
	return refusal(http.StatusUnprocessableEntity, []problem.Fault{{Parameter: name, Detail: detail}})
}

type getEventInput struct {
	StreamID string `path:"stream_id" maxLength:"64" example:"1700000000000-0" doc:"The event's place on the stream."`
}

type getEventOutput struct{ Body StoredEvent }

func (g *Gateway) getEvent(ctx context.Context, in *getEventInput) (*getEventOutput, error) {
	ctx, cancel := g.bounded(ctx)
	defer cancel()
	e, err := g.deps.Events.Get(ctx, in.StreamID)
	switch {
	case errors.Is(err, events.ErrNotFound), errors.Is(err, events.ErrQuery):
		return nil, problem.Of(http.StatusNotFound, "there is no event at this place: it was trimmed, or never was", problem.Fault{
			Parameter: "stream_id", Detail: "it names no event that is kept",
		})
	case err != nil && e == nil && errors.Is(err, events.ErrInvalid):
		return &getEventOutput{Body: storedEvent(events.Entry{StreamID: in.StreamID, Err: err})}, nil
	case err != nil:
		return nil, g.eventsFailed(ctx, err)
	}
	return &getEventOutput{Body: storedEvent(events.Entry{StreamID: in.StreamID, Event: e})}, nil
}
