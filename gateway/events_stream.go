package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/gateway/guard"
	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/problem"
)

// heartbeat is how often a quiet stream shows that it lives, so that nothing between takes it for dead.
const heartbeat = 15 * time.Second

// writeWithin bounds one write to a client. One that takes nothing for so long is left; it may resume.
const writeWithin = 3 * heartbeat

func (g *Gateway) streamRoute() {
	stream(g, keys.Read, huma.Operation{
		OperationID: "stream-events", Method: http.MethodGet, Path: "/v1/events/stream", Tags: []string{"Events"},
		Summary: "Follow events",
		Description: "Sends events as they are stored, as server-sent events: data is the CloudEvent in its JSON form, id its place on the stream. A client that comes again " +
			"with Last-Event-ID, as browsers' EventSource does by itself, goes on where it was. An event named gap says that what came after that place may have been trimmed from " +
			"the stream meanwhile. A quiet stream sends a comment every 15 seconds. The stream ends when the gateway stops: come again. " +
			"It ends with its API key, too.",
		Parameters: []*huma.Param{
			parameter("header", "Last-Event-ID", "The id that came last: go on after it."),
			parameter("query", "after", "Where to begin, without Last-Event-ID: after this place; 0-0 is the oldest event that is kept. Default: now."),
			parameter("query", "type", "Pattern of the event type: * is one segment, ** as the last one the rest. Default: all."),
		},
		Responses: map[string]*huma.Response{"200": {
			Description: "The stream.", Content: map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}},
		}},
	}, http.HandlerFunc(g.followEvents))
}

// followEvents serves GET /v1/events/stream.
func (g *Gateway) followEvents(w http.ResponseWriter, r *http.Request) {
	tail, err := g.openTail(r)
	if err != nil {
		g.answer(w, r, 0, nil, false, err)
		return
	}
	defer tail.Close()
	if g.deps.Streams != nil {
		g.deps.Streams.StreamOpened()
		defer g.deps.Streams.StreamClosed()
	}
	ctx, cancel := g.untilDraining(r.Context())
	defer cancel()
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold it back
	s := &eventStream{w: w, beat: heartbeat, allowed: g.deps.Guard.Stands}
	if err := s.run(ctx, tail); err != nil && ctx.Err() == nil {
		g.log.DebugContext(ctx, "a stream of events was left", "request_id", guard.RequestID(ctx), "err", err)
	}
}

func (g *Gateway) openTail(r *http.Request) (*events.Tail, error) {
	query := r.URL.Query()
	var faults []problem.Fault
	for name := range query {
		if name != "after" && name != "type" {
			faults = append(faults, problem.Fault{Parameter: name, Detail: "there is no such parameter: there are after and type"})
		}
	}
	if len(faults) > 0 {
		return nil, refusal(http.StatusUnprocessableEntity, faults)
	}
	after, place := query.Get("after"), problem.Fault{Parameter: "after"}
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		after, place = last, problem.Fault{Header: "Last-Event-ID"}
	}
	ctx, cancel := g.bounded(r.Context())
	defer cancel()
	tail, err := g.deps.Events.Tail(ctx, after, query.Get("type"))
	if err == nil {
		return tail, nil
	}
	err = g.eventsRefused(ctx, err)
	if p, ok := errors.AsType[*problem.Problem](err); ok && len(p.Errors) == 1 && p.Errors[0].Parameter == "after" {
		place.Detail = p.Errors[0].Detail
		err = refusal(p.Status, []problem.Fault{place})
	}
	return nil, err
}

// untilDraining ends the context when the gateway is told to stop.
func (g *Gateway) untilDraining(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	go func() {
		select {
		case <-g.draining:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// eventStream writes server-sent events.
type eventStream struct {
	w       http.ResponseWriter
	beat    time.Duration
	allowed func(context.Context) bool
	told    string // the id that the client knows
	buf     bytes.Buffer
}

// errRevoked ends the stream of a key that was revoked or has expired meanwhile. Its client comes again, and is told.
var errRevoked = errors.New("the API key is no longer good")

// run sends until ctx ends, or the client takes no more.
func (s *eventStream) run(ctx context.Context, tail *events.Tail) error {
	// The first id lets a client that is cut off before the first event resume from here.
	s.buf.WriteString("retry: 1000\n")
	s.tellPosition(tail)
	if err := s.send(); err != nil {
		return err
	}
	for {
		waiting, stop := context.WithTimeout(ctx, s.beat)
		e, err := tail.Next(waiting)
		stop()
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it was told to end
		case !s.allowed(ctx):
			return errRevoked
		case err == nil && e.Event != nil:
			s.event("", e.StreamID, e.Event.AppendJSON(nil))
		case err == nil:
			continue // what stands there is no event
		case errors.Is(err, events.ErrTrimmed):
			s.gap(tail.Position())
		case errors.Is(err, context.DeadlineExceeded):
			s.buf.WriteString(": still here\n")
			s.tellPosition(tail)
		default:
			return err
		}
		if err := s.send(); err != nil {
			return err
		}
	}
}

// tellPosition moves the place from which the client resumes on, over what doesn't match.
func (s *eventStream) tellPosition(tail *events.Tail) {
	if at := tail.Position(); at != s.told {
		s.told = at
		s.buf.WriteString("id: " + at + "\n")
	}
	s.buf.WriteByte('\n')
}

func (s *eventStream) gap(at string) {
	text, err := json.Marshal(map[string]string{
		"detail": "events before this place may have been trimmed before they could be sent: GET /v1/events lists what is kept", "stream_id": at,
	})
	if err == nil {
		s.event("gap", at, text)
	}
}

// event writes one, its data in one line.
func (s *eventStream) event(name, id string, data []byte) {
	if name != "" {
		s.buf.WriteString("event: " + name + "\n")
	}
	s.buf.WriteString("id: " + id + "\ndata: ")
	if bytes.ContainsAny(data, "\r\n") {
		_ = json.Compact(&s.buf, data) // it was read as JSON
	} else {
		s.buf.Write(data)
	}
	s.buf.WriteString("\n\n")
	s.told = id
}

func (s *eventStream) send() error {
	// Without the server's time-outs a stream is not bounded in time, but each write is.
	_ = guard.Unhurried(s.w, writeWithin)
	if _, err := io.Copy(s.w, &s.buf); err != nil {
		return err
	}
	s.buf.Reset()
	return http.NewResponseController(s.w).Flush()
}
