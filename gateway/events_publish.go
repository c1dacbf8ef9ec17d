package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/internal/problem"
)

// publish serves POST /v1/events. It is written without huma's layer: it is on the path of each event.
func (g *Gateway) publish(w http.ResponseWriter, r *http.Request) {
	mode, p := modeOf(r.Header)
	if p != nil {
		problem.Write(w, p)
		return
	}
	body, p := readBody(r, anyBody[mode])
	if p != nil {
		problem.Write(w, p)
		return
	}
	ctx := r.Context()
	key := r.Header.Get("Idempotency-Key")
	if key != "" {
		// What the key stands for is all that makes the event, in binary mode its headers too.
		ctx = context.WithValue(ctx, bodyKey{}, append(attributeLines(r.Header), body...))
	}
	if mode == batched {
		batch, replayed, err := once(ctx, g, "publish-events", key, func(ctx context.Context, seed string) (PublishedBatch, error) {
			return g.publishBatch(ctx, body, seed)
		})
		status := http.StatusOK
		if batch.Failed > 0 {
			status = http.StatusMultiStatus
		}
		g.answer(w, r, status, batch, replayed, err)
		return
	}
	published, replayed, err := once(ctx, g, "publish-events", key, func(ctx context.Context, seed string) (PublishedEvent, error) {
		e, p := decodeOne(mode, r.Header, body, seed)
		if p != nil {
			return PublishedEvent{}, p
		}
		return g.publishOne(ctx, e, seed)
	})
	if err == nil {
		w.Header().Set("Location", published.location())
	}
	g.answer(w, r, published.status(), published, replayed, err)
}

// anyBody is what each mode reads: which media types, modeOf has told.
var anyBody = map[eventMode]*huma.RequestBody{
	structured: {Required: true, Content: map[string]*huma.MediaType{"*/*": {}}},
	batched:    {Required: true, Content: map[string]*huma.MediaType{"*/*": {}}},
	binary:     {Content: map[string]*huma.MediaType{"*/*": {}}},
}

// attributeLines are the headers that are a part of the event.
func attributeLines(h http.Header) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%q\n", h["Content-Type"])
	for _, name := range sortedNames(h) {
		if attribute, ok := attributeOf(name); ok {
			fmt.Fprintf(&b, "%s %q\n", attribute, h[name])
		}
	}
	return b.Bytes()
}

func decodeOne(mode eventMode, h http.Header, body []byte, seed string) (*events.Event, *problem.Problem) {
	newID := func() string { return eventID(seed) }
	if mode == binary {
		return decodeBinary(h, body, newID)
	}
	return decodeStructured(body, "", newID)
}

// eventID makes an id: one that is in the order of time, or the one that a seed stands for.
func eventID(seed string) string {
	if seed != "" {
		return seed
	}
	if id, err := uuid.NewV7(); err == nil {
		return id.String()
	}
	return uuid.NewString()
}

func (g *Gateway) publishOne(ctx context.Context, e *events.Event, seed string) (PublishedEvent, error) {
	ctx, cancel := g.bounded(ctx)
	defer cancel()
	outcomes, err := g.deps.Publisher.Publish(ctx, e)
	if err != nil {
		return PublishedEvent{}, g.notPublished(ctx, outcomes[0].Err, "")
	}
	return publishedEvent(e, outcomes[0], seed), nil
}

// publishedEvent tells what became of an event. One whose id stands for this very request was stored by an earlier try of it: to the
// client it is the first.
func publishedEvent(e *events.Event, o events.Published, seed string) PublishedEvent {
	own := seed != "" && e.ID == seed
	return PublishedEvent{ID: e.ID, Source: e.Source, StreamID: o.StreamID, Duplicate: o.Duplicate && !own}
}

// notPublished is a problem for what Publish said of one event, at a place in the body.
func (g *Gateway) notPublished(ctx context.Context, err error, at string) error {
	switch {
	case errors.Is(err, events.ErrTooLarge):
		return problem.Of(http.StatusRequestEntityTooLarge, err.Error()+": store the data elsewhere and send a reference",
			problem.Fault{Pointer: pointer(at), Detail: "the event is too large"})
	case errors.Is(err, events.ErrInvalid):
		return refusal(http.StatusUnprocessableEntity, eventFaults(err, func(attribute string) problem.Fault {
			return problem.Fault{Pointer: pointer(under(at, attribute))}
		}))
	}
	return g.eventsFailed(ctx, err)
}

// publishBatch answers for each event in its place.
func (g *Gateway) publishBatch(ctx context.Context, body []byte, seed string) (PublishedBatch, error) {
	ctx, cancel := g.bounded(ctx)
	defer cancel()
	items, p := splitEvents(body, g.cfg.MaxBatch)
	if p != nil {
		return PublishedBatch{}, p
	}
	answer := PublishedBatch{Results: make([]PublishedBatchItem, len(items))}
	var list []*events.Event
	var places []int
	seeds := make([]string, len(items))
	for i, item := range items {
		if seed != "" {
			seeds[i] = seed + "-" + strconv.Itoa(i)
		}
		e, p := decodeStructured(item, "["+strconv.Itoa(i)+"]", func() string { return eventID(seeds[i]) })
		if p != nil {
			answer.add(i, PublishedEvent{}, p)
			continue
		}
		list, places = append(list, e), append(places, i)
	}
	outcomes, _ := g.deps.Publisher.Publish(ctx, list...) // each has its own
	for n, i := range places {
		if outcomes[n].Err == nil {
			answer.add(i, publishedEvent(list[n], outcomes[n], seeds[i]), nil)
			continue
		}
		err := g.notPublished(ctx, outcomes[n].Err, "["+strconv.Itoa(i)+"]")
		p, ok := errors.AsType[*problem.Problem](err)
		if !ok {
			return PublishedBatch{}, err
		}
		answer.add(i, PublishedEvent{}, p)
	}
	return answer, answer.down()
}

func (b *PublishedBatch) add(i int, e PublishedEvent, p *problem.Problem) {
	switch {
	case p != nil:
		b.Failed++
		b.Results[i] = PublishedBatchItem{Status: p.Status, Problem: p}
		return
	case e.Duplicate:
		b.Duplicates++
	default:
		b.Stored++
	}
	b.Results[i] = PublishedBatchItem{Status: e.status(), Event: &e}
}

// down is the problem of a batch of which Redis took nothing.
func (b *PublishedBatch) down() error {
	if b.Stored+b.Duplicates > 0 {
		return nil
	}
	for _, r := range b.Results {
		if r.Status == http.StatusServiceUnavailable {
			return r.Problem
		}
	}
	return nil
}

// answer writes JSON, or the problem that err is.
func (g *Gateway) answer(w http.ResponseWriter, r *http.Request, status int, body any, replayed bool, err error) {
	if err != nil {
		p, ok := errors.AsType[*problem.Problem](err)
		if !ok {
			g.log.ErrorContext(r.Context(), "a request failed", "path", r.URL.Path, "err", err)
			p = problem.Of(http.StatusInternalServerError, "the gateway failed on this request: its log says why")
		}
		w.Header().Del("Location")
		problem.Write(w, p)
		return
	}
	text, err := json.Marshal(body)
	if err != nil {
		g.log.ErrorContext(r.Context(), "an answer has no JSON form", "path", r.URL.Path, "err", err)
		problem.Write(w, problem.Of(http.StatusInternalServerError, "it is done, but the answer can't be written"))
		return
	}
	if replayed {
		w.Header().Set("Idempotent-Replayed", "true")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // the client is gone
}
