package gateway

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/bellhop-dev/bellhop/gateway/guard"
	"github.com/bellhop-dev/bellhop/internal/problem"
	"github.com/bellhop-dev/bellhop/internal/suggest"
	"github.com/bellhop-dev/bellhop/queue"
)

// retryAfter is when a client should come again while Redis is away.
const retryAfter = 2 * time.Second

// outage answers for a failure of Redis. The client is told nothing of it but that it may come again; the log has the reason.
func (g *Gateway) outage(ctx context.Context, err error) error {
	if errors.Is(err, queue.ErrNotReplicated) {
		return problem.Unavailable("it is stored, but not on as many replicas as this installation asks for: send it again, with the same "+
			"Idempotency-Key or id, until it is", retryAfter)
	}
	g.tellOutage(ctx, err)
	return problem.Unavailable("Redis did not take it in time: send it again, with the same Idempotency-Key or id, in case it was stored", retryAfter)
}

// tellOutage logs the reason once a second at most: under load every request has the same one.
func (g *Gateway) tellOutage(ctx context.Context, err error) {
	now := time.Now().UnixNano()
	last := g.told.Load()
	if now-last > int64(time.Second) && g.told.CompareAndSwap(last, now) {
		g.log.WarnContext(ctx, "Redis failed a request", "request_id", guard.RequestID(ctx), "err", err)
	}
}

// bounded gives a request's work with Redis its time.
func (g *Gateway) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, g.cfg.RedisWithin)
}

// writeUnrouted answers what no route takes. The mux's own handler knows whether it is the path or the method.
func writeUnrouted(w http.ResponseWriter, r *http.Request, mux http.Handler) {
	answer := &statusOnly{header: make(http.Header)}
	mux.ServeHTTP(answer, r)
	if answer.status == http.StatusMethodNotAllowed {
		allowed := answer.header.Get("Allow")
		w.Header().Set("Allow", allowed)
		problem.Write(w, problem.Of(answer.status, r.URL.Path+" takes "+allowed))
		return
	}
	problem.Write(w, problem.Of(http.StatusNotFound, "there is no such path: /openapi.json lists them"))
}

// statusOnly takes an answer and keeps what is to be said otherwise.
type statusOnly struct {
	header http.Header
	status int
}

func (s *statusOnly) Header() http.Header         { return s.header }
func (s *statusOnly) Write(b []byte) (int, error) { return len(b), nil }
func (s *statusOnly) WriteHeader(status int)      { s.status = status }

// transform makes problems of ours of huma's errors.
func transform(ctx huma.Context, _ string, v any) (any, error) {
	theirs, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	if theirs.Status >= http.StatusInternalServerError {
		return problem.Of(theirs.Status, "the gateway failed on this request: its log says why"), nil
	}
	faults := make([]problem.Fault, 0, len(theirs.Errors))
	for _, e := range theirs.Errors {
		faults = append(faults, faultOf(ctx.Operation(), e))
	}
	return refusal(theirs.Status, faults), nil
}

// refusal is a problem about fields and parameters.
func refusal(status int, faults []problem.Fault) *problem.Problem {
	details := make([]string, len(faults))
	for i, f := range faults {
		details[i] = f.Error()
	}
	return problem.New(status, "invalid", "The request is not valid", strings.Join(details, "; "), faults...)
}

// faultOf takes over where the fault is and what is wrong, but not the value: it may be a secret.
func faultOf(op *huma.Operation, e *huma.ErrorDetail) problem.Fault {
	place, name, _ := strings.Cut(e.Location, ".")
	switch place {
	case "header":
		return problem.Fault{Header: name, Detail: e.Message}
	case "path", "query":
		detail := e.Message
		if detail == "unknown query parameter" {
			detail += suggest.DidYouMean(name, parametersOf(op))
		}
		return problem.Fault{Parameter: name, Detail: detail}
	}
	return problem.Fault{Pointer: pointer(strings.TrimPrefix(e.Location, "body")), Detail: e.Message}
}

func parametersOf(op *huma.Operation) []string {
	var names []string
	for _, p := range op.Parameters {
		if p.In == "query" {
			names = append(names, p.Name)
		}
	}
	return names
}

// pointer makes a JSON pointer of a path such as .jobs[3].queue.
func pointer(path string) string {
	path = pointerOf.Replace(path)
	if path != "" && !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	return "#" + path
}

var pointerOf = strings.NewReplacer("~", "~0", "/", "~1", ".", "/", "[", "/", "]", "")

// lastOf is the last name in a JSON pointer.
func lastOf(pointer string) string { return pointer[strings.LastIndexByte(pointer, '/')+1:] }

var errNotUTF8 = errors.New("it is not UTF-8, which JSON must be")
