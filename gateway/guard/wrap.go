package guard

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/problem"
)

// Wrap protects everything that stands behind it: recover, request id, access log, rate limits, body limit, gzip both ways, security
// headers, CORS. A mux must stand directly behind it, so that the log can tell the route.
func (g *Guard) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := g.visit(r)
		a := &answer{ResponseWriter: w, accepts: acceptsGzip(r)}
		r = r.WithContext(context.WithValue(r.Context(), visitKey{}, v))

		g.observer.RequestStarted()
		defer g.done(a, r, v)
		defer g.recover(a, r, v)
		g.secure(a.Header(), v)
		if !g.cors(a, r) && g.limit(a, r, v) && g.checkBody(a, r) {
			next.ServeHTTP(a, r)
		}
		a.finish()
	})
}

// visit is one request as the guard knows it.
type visit struct {
	began  time.Time
	id     string
	addr   netip.Addr
	token  bool // it shows a token
	bearer bool // as Bearer
	key    keys.Key
	err    error // why the token is no good
}

type visitKey struct{}

func visitOf(ctx context.Context) *visit {
	v, _ := ctx.Value(visitKey{}).(*visit)
	return v
}

// RequestID returns the request's id, "" outside of Wrap.
func RequestID(ctx context.Context) string {
	if v := visitOf(ctx); v != nil {
		return v.id
	}
	return ""
}

// Address returns the client's address, the zero Addr outside of Wrap and for a peer without one.
func Address(ctx context.Context) netip.Addr {
	if v := visitOf(ctx); v != nil {
		return v.addr
	}
	return netip.Addr{}
}

func (g *Guard) visit(r *http.Request) *visit {
	v := &visit{began: time.Now(), id: r.Header.Get("X-Request-Id"), addr: g.proxies.client(r)}
	if !saneID(v.id) {
		v.id = rand.Text()
	}
	return v
}

const maxIDLength = 64

// saneID tells whether a client's request id may stand in logs and headers.
func saneID(id string) bool {
	if id == "" || len(id) > maxIDLength {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}

// These never change, and are shared by all answers.
var (
	nosniff  = []string{"nosniff"}
	noStore  = []string{"no-store"}
	noPolicy = []string{"default-src 'none'; frame-ancestors 'none'"}
)

func (g *Guard) secure(h http.Header, v *visit) {
	h["X-Content-Type-Options"] = nosniff
	h["Content-Security-Policy"] = noPolicy
	h["Cache-Control"] = noStore // a handler whose answer is nobody's secret sets another
	h["X-Request-Id"] = []string{v.id}
}

// cors answers a browser's question before it sends a request of a script of another origin; true if it has. Nobody is named: no header,
// the browser refuses.
func (g *Guard) cors(w http.ResponseWriter, r *http.Request) bool {
	if len(g.cfg.CORSOrigins) == 0 {
		return false
	}
	h := w.Header()
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if !slices.Contains(g.cfg.CORSOrigins, origin) {
		return false
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", "Location, Retry-After, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, X-Request-Id")
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE")
	// Cookies are never taken, so that a header can do no more than its sender's key allows.
	if asked := r.Header.Get("Access-Control-Request-Headers"); len(asked) <= 1024 {
		h.Set("Access-Control-Allow-Headers", asked)
	}
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// limit counts the request against its key if that is good, else against its address; false if it was one too many.
func (g *Guard) limit(w http.ResponseWriter, r *http.Request, v *visit) bool {
	v.identify(r, g.keys)
	who, q := subject{kind: ofAddress, addr: household(v.addr)}, g.addressQuota
	if v.token && v.err == nil {
		who, q = subject{kind: ofKey, id: v.key.ID}, g.keyQuota
		if v.key.Rate > 0 {
			q = newQuota(v.key.Rate, g.cfg.Burst)
		}
	}
	d := g.limits.take(r.Context(), who, q)
	if !q.unlimited() {
		d.writeTo(w.Header())
	}
	if !d.ok {
		g.refuse(w, RejectedLimit, tooMany("the requests of this "+string(who.kind)+" come too fast; wait, then go on more slowly", d))
	}
	return d.ok
}

func tooMany(detail string, d decision) *problem.Problem {
	p := problem.Of(http.StatusTooManyRequests, detail)
	p.RetryAfter = max(d.after, time.Millisecond)
	return p
}

func (g *Guard) checkBody(a *answer, r *http.Request) bool {
	p := g.limitBody(r, &a.fault)
	if p != nil {
		a.Header().Set("Connection", "close") // the body is not read
		reason := RejectedOther
		if p.Status == http.StatusRequestEntityTooLarge {
			reason = RejectedSize
		}
		g.refuse(a, reason, p)
	}
	return p == nil
}

func (g *Guard) refuse(w http.ResponseWriter, reason Reason, p *problem.Problem) {
	g.observer.Rejected(reason)
	problem.Write(w, p)
}

// recover answers for a handler that panicked. What the panic says may be a client's secret: only the runtime's own words are logged.
func (g *Guard) recover(a *answer, r *http.Request, v *visit) {
	fault := recover()
	if fault == nil {
		return
	}
	if fault == http.ErrAbortHandler { //nolint:errorlint,err113 // a sentinel, never wrapped
		panic(fault)
	}
	said := fmt.Sprintf("%T", fault)
	if err, ok := fault.(runtime.Error); ok {
		said = err.Error()
	}
	g.log.ErrorContext(r.Context(), "handler panicked", "panic", said, "route", route(r), "request_id", v.id, "stack", string(debug.Stack()))
	if a.status != 0 && a.mode != held {
		panic(http.ErrAbortHandler) // half an answer is out: let the client see that it broke
	}
	a.status, a.mode, a.held = 0, plain, nil
	a.Header().Del("Content-Length")
	problem.Write(a, problem.Of(http.StatusInternalServerError, "this is a fault of the server's; its log tells more about the request "+v.id))
	a.finish()
}

// done tells the log and the observer. Neither a path nor a query stands there: both can hold secrets.
func (g *Guard) done(a *answer, r *http.Request, v *visit) {
	took := time.Since(v.began)
	a.fault.hold.release()
	switch p := a.fault.problem; {
	case p == nil || p.Status != a.status:
	case p.Status == http.StatusRequestEntityTooLarge:
		g.observer.Rejected(RejectedSize)
	case p.Status == http.StatusServiceUnavailable:
		g.observer.Rejected(RejectedBusy)
	}
	g.observer.RequestDone(route(r), method(r), a.status, took)
	g.log.LogAttrs(r.Context(), slog.LevelInfo, "request",
		slog.String("method", method(r)), slog.String("route", route(r)), slog.Int("status", a.status), slog.Int64("bytes", a.bytes),
		slog.String("took", took.Round(10*time.Microsecond).String()), slog.String("key", v.key.ID), slog.String("request_id", v.id), slog.String("addr", addrText(v.addr)))
}

func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return "unknown"
	}
	return a.String()
}

// route is the pattern that the mux found, without the method and host that may stand before the path.
func route(r *http.Request) string {
	if i := strings.IndexByte(r.Pattern, '/'); i >= 0 {
		return r.Pattern[i:]
	}
	return "none"
}

func method(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return r.Method
	}
	return "OTHER"
}

func acceptsGzip(r *http.Request) bool {
	if r.Method == http.MethodHead {
		return false
	}
	for _, line := range r.Header["Accept-Encoding"] {
		for item := range strings.SplitSeq(line, ",") {
			coding, weight, _ := strings.Cut(item, ";")
			if strings.EqualFold(strings.TrimSpace(coding), "gzip") {
				weight = strings.ReplaceAll(strings.ToLower(weight), " ", "")
				return strings.Trim(strings.TrimPrefix(weight, "q="), "0.") != "" || weight == ""
			}
		}
	}
	return false
}
