package gateway

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/problem"
)

// Route is one of the public address.
type Route struct {
	Method string
	Path   string
	// Scope is what an API key must have; open if anybody may call it.
	Scope       keys.Scope
	OperationID string
}

// open is the scope of what needs no key. It is spelled out, so that a forgotten scope is not taken for it.
const open keys.Scope = "open"

// Open tells that the route takes no API key.
func (r Route) Open() bool { return r.Scope == open }

// Routes lists what the public address serves.
func (g *Gateway) Routes() []Route { return append([]Route(nil), g.routes...) }

// operation registers an operation of the API: a handler of decoded parameters, with the scope that a key must have. If op has a
// RequestBody, the body is read before, within the guard's limit, and is bodyOf the handler's context; nothing else looks at it.
// op.Errors are the statuses of problems that this operation has beyond those that each of its kind has.
func operation[I, O any](g *Gateway, scope keys.Scope, op huma.Operation, handle func(context.Context, *I) (*O, error)) {
	body := g.describe(scope, &op)
	huma.Register(g.api, op, handle)
	g.documented(op).RequestBody = body
}

// stream registers an operation of the API that reads and writes HTTP by itself, such as a stream of events. The body is its to read.
func stream(g *Gateway, scope keys.Scope, op huma.Operation, handler http.Handler) {
	body := g.describe(scope, &op)
	op.RequestBody = body
	g.api.OpenAPI().AddOperation(&op)
	g.route(scope, op.Method, op.Path, op.OperationID, handler)
}

const (
	metaScope = "scope"
	metaBody  = "body"
)

// describe completes what the document says of the operation, and takes its body out: huma would read and check it.
func (g *Gateway) describe(scope keys.Scope, op *huma.Operation) *huma.RequestBody {
	if scope == "" || op.OperationID == "" || op.Summary == "" {
		panic(fmt.Sprintf("gateway: %s %s needs a scope, an OperationID and a Summary", op.Method, op.Path))
	}
	body := op.RequestBody
	op.RequestBody = nil
	op.Metadata = map[string]any{metaScope: scope, metaBody: body}
	if op.Responses == nil {
		op.Responses = make(map[string]*huma.Response)
	}
	statuses := append([]int{http.StatusInternalServerError, http.StatusServiceUnavailable, http.StatusTooManyRequests}, op.Errors...)
	op.Errors = nil
	if scope != open {
		op.Security = []map[string][]string{{securityScheme: {string(scope)}}}
		statuses = append(statuses, http.StatusUnauthorized, http.StatusForbidden)
	}
	if body != nil {
		statuses = append(statuses, http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	schema := g.schemaOf(problem.Problem{})
	for _, status := range append(statuses, http.StatusUnprocessableEntity) {
		response := &huma.Response{
			Description: problemsOf[status],
			Content:     map[string]*huma.MediaType{problem.ContentType: {Schema: schema}},
		}
		if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
			response.Headers = map[string]*huma.Param{
				"Retry-After": {Description: "Seconds after which to try again.", Schema: &huma.Schema{Type: huma.TypeInteger}},
			}
		}
		op.Responses[strconv.Itoa(status)] = response
	}
	return body
}

var problemsOf = map[int]string{
	http.StatusBadRequest:            "The request can't be read.",
	http.StatusUnauthorized:          "The API key is missing, unknown or expired.",
	http.StatusForbidden:             "The API key does not have the scope.",
	http.StatusNotFound:              "There is nothing of this name.",
	http.StatusConflict:              "Another state stands in the way.",
	http.StatusGone:                  "It was there, and is not any more.",
	http.StatusPreconditionFailed:    "It was changed meanwhile, or is there already.",
	http.StatusRequestEntityTooLarge: "The body is larger than the gateway accepts.",
	http.StatusUnsupportedMediaType:  "The body's content type is not one that is listed.",
	http.StatusUnprocessableEntity:   "A field or parameter does not fit; the problem names each.",
	http.StatusTooManyRequests:       "The API key, or the address, has sent more than its rate allows.",
	http.StatusInternalServerError:   "The gateway failed; its log says why, by the request's id.",
	http.StatusServiceUnavailable:    "Redis is away or full. Nothing is wrong with the request: send it again.",
}

// documented is the operation in the document.
func (g *Gateway) documented(op huma.Operation) *huma.Operation {
	item := g.api.OpenAPI().Paths[op.Path]
	return map[string]*huma.Operation{
		http.MethodGet: item.Get, http.MethodPost: item.Post, http.MethodPut: item.Put, http.MethodPatch: item.Patch, http.MethodDelete: item.Delete,
	}[op.Method]
}

// route is the one place where a handler meets a path: its scope goes with it.
func (g *Gateway) route(scope keys.Scope, method, path, id string, handler http.Handler) {
	if scope != open {
		handler = g.deps.Guard.Authorize(scope, handler)
	}
	g.mux.Handle(method+" "+path, handler)
	g.routes = append(g.routes, Route{Method: method, Path: path, Scope: scope, OperationID: id})
}

// adapter lets huma register its operations as routes.
type adapter struct{ g *Gateway }

func (a adapter) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.g.mux.ServeHTTP(w, r) }

func (a adapter) Handle(op *huma.Operation, handle func(huma.Context)) {
	scope, _ := op.Metadata[metaScope].(keys.Scope)
	body, _ := op.Metadata[metaBody].(*huma.RequestBody)
	if scope == "" {
		panic("gateway: " + op.Path + " was registered without a scope: use operation or stream")
	}
	a.g.route(scope, op.Method, op.Path, op.OperationID, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if body != nil {
			data, p := readBody(r, body)
			if p != nil {
				problem.Write(w, p)
				return
			}
			r = r.WithContext(context.WithValue(r.Context(), bodyKey{}, data))
		}
		handle(humago.NewContext(op, r, w))
	}))
}

func (g *Gateway) hookRoutes() {
	if g.deps.Hooks == nil {
		return
	}
	stream(g, open, huma.Operation{
		OperationID: "receive-webhook", Method: http.MethodPost, Path: "/hooks/{name}", Tags: []string{"Webhooks"},
		Summary: "Receive a webhook",
		Description: "Takes a provider's delivery for the hook of that name in the gateway's configuration, checks its signature, " +
			"and publishes it as an event. It takes no API key: the signature stands for it.",
		Parameters: []*huma.Param{{
			Name: "name", In: "path", Required: true, Description: "The hook's name.", Example: "github",
			Schema: &huma.Schema{Type: huma.TypeString},
		}},
		RequestBody: &huma.RequestBody{
			Required: true, Description: "As the provider sends it.", Content: map[string]*huma.MediaType{"*/*": {}},
		},
		Responses: map[string]*huma.Response{
			"200": {Description: "The provider asked for an answer, such as Slack's challenge."},
			"202": {Description: "The event is durable in Redis, now or from an earlier delivery."},
		},
		Errors: []int{http.StatusUnauthorized, http.StatusNotFound},
	}, g.deps.Hooks)
}
