// Package gateway is the HTTP door of bellhop: events, jobs and webhooks come in, and programs ask where they stand.
//
// Step 1 of 7: producers in any language reach bellhop through it. What it promises:
//
//   - A 2xx is given only once the event or job is durable in Redis. While Redis is away the answer is a 503 with Retry-After, in
//     bounded time.
//   - A request with an Idempotency-Key takes place once, even if the gateway dies in the middle of it and the client sends it again.
//   - Every route names the scope that an API key must have, in the call that registers it. Routes lists them.
//   - Whatever is not a success is an RFC 9457 problem that names the field and what to do.
package gateway

import (
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/danielgtaylor/huma/v2"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/endpoints"
	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/gateway/guard"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/triggers"
)

// Deps are what a gateway works with. All but those marked so are needed.
type Deps struct {
	// Redis is asked whether it answers, and remembers Idempotency-Keys.
	Redis redis.UniversalClient
	// Jobs enqueues. For the durable mode make it with job.Durable.
	Jobs   *job.Client
	Events *events.Client
	Fleet  *fleet.Client
	// Catalog knows the tasks; the caller runs its Run.
	Catalog *fleet.Catalog
	Guard   *guard.Guard

	// Triggers keeps those that are made at run time; nil: they have no routes.
	Triggers *triggers.Store
	// Endpoints is what the fleet knows of those that webhooks are delivered to; nil: they have no routes.
	Endpoints *endpoints.Client
	// Hooks serves POST /hooks/{name}; nil: there are none. It checks signatures itself: the route takes no API key.
	Hooks http.Handler
	// Publisher publishes what comes in; nil: Events. One that counts stands before it.
	Publisher events.Publisher
	// Streams is told how many clients follow events; nil: nobody is.
	Streams StreamObserver
	// Metrics serves GET /metrics on the private address; nil: none.
	Metrics http.Handler
	// Logger is slog.Default() if nil.
	Logger *slog.Logger
}

// StreamObserver counts the streams of events that are open.
type StreamObserver interface {
	StreamOpened()
	StreamClosed()
}

// Gateway answers HTTP requests. It is safe for concurrent use.
type Gateway struct {
	cfg    Config
	deps   Deps
	log    *slog.Logger
	mux    *http.ServeMux
	api    huma.API
	routes []Route

	drain    sync.Once
	draining chan struct{} // closed once the process is to stop
	told     atomic.Int64  // when an outage was logged last, in Unix nanoseconds
}

// New returns a gateway; it listens nowhere yet, see Handler and Private.
func New(cfg Config, deps Deps) (*Gateway, error) {
	cfg = cfg.WithDefaults()
	if err := errors.Join(cfg.Validate(), deps.check()); err != nil {
		return nil, err
	}
	g := &Gateway{cfg: cfg, deps: deps, log: deps.Logger, mux: http.NewServeMux(), draining: make(chan struct{})}
	if g.deps.Publisher == nil {
		g.deps.Publisher = deps.Events
	}
	if g.log == nil {
		g.log = slog.Default()
	}
	g.api = newAPI(g)
	g.jobRoutes()
	g.taskRoutes()
	g.eventRoutes()
	g.triggerRoutes()
	g.endpointRoutes()
	g.queueRoutes()
	g.hookRoutes()
	if err := g.publicRoutes(); err != nil {
		return nil, err
	}
	return g, nil
}

func (d Deps) check() error {
	if d.Redis == nil || d.Jobs == nil || d.Events == nil || d.Fleet == nil || d.Catalog == nil || d.Guard == nil {
		return errors.New("gateway: Redis, Jobs, Events, Fleet, Catalog and Guard of Deps must be set")
	}
	return nil
}

// Handler serves the public address.
func (g *Gateway) Handler() http.Handler { return g.deps.Guard.Wrap(http.HandlerFunc(g.serve)) }

// serve answers with a route's handler. What no route takes gets a problem, where the mux would answer in plain text.
func (g *Gateway) serve(w http.ResponseWriter, r *http.Request) {
	handler, pattern := g.mux.Handler(r)
	if pattern == "" {
		writeUnrouted(w, r, handler)
		return
	}
	g.mux.ServeHTTP(w, r)
}

// Drain makes the gateway unready and ends what would not end by itself: streams and waits for jobs. Requests are served on. It may be
// called more than once.
func (g *Gateway) Drain() { g.drain.Do(func() { close(g.draining) }) }

// Draining is closed by Drain. Streams end on it.
func (g *Gateway) Draining() <-chan struct{} { return g.draining }
