package gateway

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/problem"
)

func (g *Gateway) eventRoutes() {
	g.publishRoute()
	g.listRoutes()
	g.replayRoutes()
	g.streamRoute()
}

// The media types of CloudEvents.
const (
	mediaStructured = "application/cloudevents+json"
	mediaBatch      = "application/cloudevents-batch+json"
	mediaEvents     = "application/cloudevents"
)

func (g *Gateway) publishRoute() {
	stream(g, keys.Publish, huma.Operation{
		OperationID: "publish-events", Method: http.MethodPost, Path: "/v1/events", Tags: []string{"Events"},
		Summary: "Publish events",
		Description: "Takes CloudEvents 1.0 in each of the three modes of the HTTP binding: structured (" + mediaStructured + "), a batch (" + mediaBatch +
			", up to max_batch events), or binary: the attributes in ce- headers, any content type.\n\n" +
			"Source and id name an event: one that was published within the last 24 hours is a duplicate, and not stored again. 201 says that the event is " +
			"durable in Redis, 200 that it was before. An event may come without id: the gateway makes one, from the Idempotency-Key if there is one. A batch " +
			"is answered for each of its events, with 200 if all are stored or duplicates and 207 if some are not; 503 says that Redis took none.",
		Parameters: []*huma.Param{
			parameter("header", "Idempotency-Key", "Makes the request take place once, however often it is sent: a repetition within 24 hours gets the first one's "+
				"answer, with Idempotent-Replayed: true. Events that name their id need it not."),
			parameter("header", "ce-specversion", "Binary mode: 1.0. Every other attribute has its header too: ce-id, ce-type, ce-source, ce-subject, ce-time, ..."),
		},
		RequestBody: &huma.RequestBody{
			Description: "The event, a list of them, or in binary mode its data.",
			Content: map[string]*huma.MediaType{
				mediaStructured: {Schema: g.schemaOf(EventBody{}), Example: exampleEvent},
				mediaBatch: {
					Schema:  &huma.Schema{Type: huma.TypeArray, Items: g.schemaOf(EventBody{})},
					Example: []any{exampleEvent},
				},
				"*/*": {},
			},
		},
		Responses: map[string]*huma.Response{
			"200": {
				Description: "A duplicate: the event was stored before. Or a batch of which all are stored, or were.",
				Content: map[string]*huma.MediaType{"application/json": {
					Schema: &huma.Schema{OneOf: []*huma.Schema{g.schemaOf(PublishedEvent{}), g.schemaOf(PublishedBatch{})}},
				}},
			},
			"201": g.jsonAnswer("The event is stored.", PublishedEvent{}),
			"207": g.jsonAnswer("Some events of the batch are not stored: see each one's status.", PublishedBatch{}),
		},
		Errors: []int{http.StatusConflict},
	}, http.HandlerFunc(g.publish))
}

func parameter(in, name, description string) *huma.Param {
	return &huma.Param{In: in, Name: name, Description: description, Schema: &huma.Schema{Type: huma.TypeString}}
}

var exampleEvent = map[string]any{
	"specversion": "1.0", "type": "com.acme.email.received", "source": "/mail/inbox", "id": "msg-4711",
	"data": map[string]any{"folder": "INBOX", "from": "ada@example.com"},
}

// EventBody describes a CloudEvent in its JSON form.
type EventBody struct {
	SpecVersion     string   `json:"specversion" enum:"1.0"`
	Type            string   `json:"type" maxLength:"512" example:"com.acme.email.received" doc:"What happened, by custom in reverse DNS."`
	Source          string   `json:"source" maxLength:"2048" example:"/mail/inbox" doc:"Where it happened, a URI reference. Source and id name the event."`
	ID              string   `json:"id,omitempty" maxLength:"1024" example:"msg-4711" doc:"Unique within the source. The gateway makes one if it is left out."`
	Subject         string   `json:"subject,omitempty" maxLength:"4096" doc:"What it happened to."`
	Time            string   `json:"time,omitempty" format:"date-time" doc:"When it happened."`
	DataContentType string   `json:"datacontenttype,omitempty" maxLength:"256" doc:"Media type of the data; JSON if left out."`
	DataSchema      string   `json:"dataschema,omitempty" maxLength:"2048" doc:"Absolute URI of the data's schema."`
	Data            any      `json:"data,omitempty" doc:"What is to be told about it."`
	DataBase64      string   `json:"data_base64,omitempty" doc:"In place of data, bytes in base64."`
	_               struct{} `json:"-" additionalProperties:"true"`
}

// PublishedEvent is what became of an event.
type PublishedEvent struct {
	ID        string `json:"id" example:"msg-4711" doc:"The event's id, as sent or made."`
	Source    string `json:"source" example:"/mail/inbox"`
	StreamID  string `json:"stream_id" example:"1700000000000-0" doc:"Its place on the stream; of a duplicate, that of the first."`
	Duplicate bool   `json:"duplicate" doc:"It was published before, and not stored again."`
}

func (p PublishedEvent) status() int {
	if p.Duplicate {
		return http.StatusOK
	}
	return http.StatusCreated
}

func (p PublishedEvent) location() string { return "/v1/events/" + url.PathEscape(p.StreamID) }

// PublishedBatch is what became of a batch's events.
type PublishedBatch struct {
	Stored     int                  `json:"stored" example:"1" doc:"How many events were stored."`
	Duplicates int                  `json:"duplicates" example:"0" doc:"How many were stored before."`
	Failed     int                  `json:"failed" example:"0" doc:"How many are not stored."`
	Results    []PublishedBatchItem `json:"results" nullable:"false" doc:"What became of each event, in the order of the request."`
}

// PublishedBatchItem is what became of one event of a batch.
type PublishedBatchItem struct {
	Status  int              `json:"status" example:"201" doc:"What would have been answered to it alone: 201, 200 for a duplicate, 4xx, or 503: send it again."`
	Event   *PublishedEvent  `json:"event,omitempty"`
	Problem *problem.Problem `json:"problem,omitempty"`
}

// unfinished tells that some events could be stored yet: such an answer is not the last one to its Idempotency-Key.
func (b PublishedBatch) unfinished() bool {
	for _, r := range b.Results {
		if r.Status >= http.StatusInternalServerError {
			return true
		}
	}
	return false
}

// retryFull is when a client should come again while the stream is full: a group must catch up.
const retryFull = 10 * time.Second

// eventsFailed answers for an error of the stream that is no fault of an event.
func (g *Gateway) eventsFailed(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, events.ErrFull):
		g.tellOutage(ctx, err)
		p := problem.New(http.StatusServiceUnavailable, "stream-full", "The event stream is full",
			"nothing is wrong with the event: a durable group lags behind, so there is no room; send it again later")
		p.RetryAfter = retryFull
		return p
	case errors.Is(err, events.ErrNotReplicated):
		return problem.Unavailable("it is stored, but not on as many replicas as this installation asks for: send it again, with the same "+
			"Idempotency-Key or id, until it is", retryAfter)
	}
	return g.outage(ctx, err)
}
