package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/gateway/keys"
)

// Deps is what a Guard works with.
type Deps struct {
	Redis    redis.UniversalClient // holds the rate limits of the fleet
	Keys     *keys.Store
	Observer Observer     // counts; nil: nobody does
	Log      *slog.Logger // access log and faults; nil: slog.Default()
}

// Observer is told what happens, to count it. Its methods are called by many requests at once and must not block.
type Observer interface {
	// RequestStarted is called before, RequestDone after each request. The route is the pattern it matched, "none" where none
	// did; the method is "OTHER" if it is not a usual one: both are few.
	RequestStarted()
	RequestDone(route, method string, status int, took time.Duration)
	// Rejected is called for each request that the guard itself refuses, with the reason.
	Rejected(Reason)
}

// Reason is why the guard refused a request.
type Reason string

// The reasons there are.
const (
	RejectedLimit Reason = "limit"       // 429: too many requests of an address or a key, or wrong keys
	RejectedAuth  Reason = "auth"        // 401, 403: no key, a wrong one, or one without the scope
	RejectedSize  Reason = "size"        // 413: the body is too large
	RejectedBusy  Reason = "busy"        // 503: Redis is away, keys cannot be checked
	RejectedConns Reason = "connections" // closed without an answer: too many connections
)

// Guard protects handlers. Make one with New; one is enough for a process.
type Guard struct {
	cfg Config
}

// New returns a Guard. The error tells every fault of cfg.
func New(cfg Config, deps Deps) (*Guard, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	if deps.Redis == nil || deps.Keys == nil {
		return nil, errors.New("guard: needs Redis and Keys")
	}
	return &Guard{cfg: cfg.WithDefaults()}, nil
}

// Wrap protects everything that stands behind it, keys aside: recover, request id, access log, rate limit per address, body
// limit, gzip both ways, security headers, CORS.
func (g *Guard) Wrap(next http.Handler) http.Handler { return next }

// Authorize lets a request pass that shows a key with the scope: 401, 403, 429 or 503 as problem+json otherwise.
// keys.FromContext tells the handler who it is.
func (g *Guard) Authorize(scope keys.Scope, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ctx, ok := g.Admit(w, r, scope); ok {
			next.ServeHTTP(w, r.WithContext(ctx))
		}
	})
}

// Admit is Authorize for other kinds of middleware: it returns the context to go on with, or answers the request itself and
// returns false.
//
//	func(ctx huma.Context, next func(huma.Context)) {
//		r, w := humago.Unwrap(ctx)
//		if c, ok := guard.Admit(w, r, scope); ok {
//			next(huma.WithContext(ctx, c))
//		}
//	}
func (g *Guard) Admit(w http.ResponseWriter, r *http.Request, scope keys.Scope) (context.Context, bool) {
	return r.Context(), false
}

// Server returns a server for h, which should be made by Wrap, with the limits on time, headers and connections set. Serve it on a
// Listener of the same Guard.
func (g *Guard) Server(h http.Handler) *http.Server {
	return &http.Server{Handler: h, ReadHeaderTimeout: g.cfg.ReadHeaderTimeout}
}

// Listener bounds the connections of l for the Server of the same Guard.
func (g *Guard) Listener(l net.Listener) net.Listener { return l }

// RequestID returns the request's id, "" outside of Wrap.
func RequestID(ctx context.Context) string { return "" }

// Address returns the client's address, "" outside of Wrap.
func Address(ctx context.Context) string { return "" }

// Unhurried gives the answer that is written to w time until d from now, 0 for no end, in place of the server's read and write
// time-outs: for streams (call it before each write with what one write may take) and for answers that wait.
func Unhurried(w http.ResponseWriter, d time.Duration) error {
	var until time.Time
	if d > 0 {
		until = time.Now().Add(d)
	}
	rc := http.NewResponseController(w)
	return errors.Join(rc.SetReadDeadline(until), rc.SetWriteDeadline(until))
}
