package guard

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/problem"
)

// Authorize lets a request pass that shows a key with the scope: 401, 403, 429 or 503 as problem+json otherwise.
// keys.FromContext tells the handler who it is. It stands behind Wrap.
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
	ctx := r.Context()
	v := visitOf(ctx)
	if v == nil { // a route that was forgotten to be wrapped stays shut
		g.log.ErrorContext(ctx, "a route asks for a key but does not stand behind Guard.Wrap", "route", route(r))
		problem.Write(w, problem.Of(http.StatusInternalServerError, "this is a fault of the server's"))
		return nil, false
	}
	switch {
	case !v.token:
		g.challenge(w, "", problem.Of(http.StatusUnauthorized, "an API key is needed; send it as Authorization: Bearer bh_..."))
	case errors.Is(v.err, keys.ErrUnavailable):
		g.refuse(w, RejectedBusy, problem.Unavailable("API keys cannot be checked for now; try again", retryKeysAfter))
	case v.err != nil:
		g.refuseToken(w, r, v)
	case !v.key.Allows(scope):
		p := problem.Of(http.StatusForbidden, "the API key lacks the scope \""+string(scope)+"\"; use one that has it")
		g.challenge(w, `error="insufficient_scope", scope="`+string(scope)+`"`, p)
	default:
		return keys.NewContext(ctx, v.key), true
	}
	return nil, false
}

const retryKeysAfter = 2 * time.Second

// refuseToken answers to a token that is no good; to one too many of an address with 429. Others who come from that address with
// a good key are not held up: guessing 200 bits is hopeless at any rate, what is limited here is the load and the noise.
func (g *Guard) refuseToken(w http.ResponseWriter, r *http.Request, v *visit) {
	d := g.limits.take(r.Context(), subject{kind: ofFailures, addr: household(v.addr)}, g.failureQuota)
	if !d.ok {
		g.refuse(w, RejectedLimit, tooMany("too many wrong API keys come from this address; wait, and check the key", d))
		return
	}
	detail := "the API key is not known here: it is mistyped, was revoked, or belongs to another gateway"
	switch {
	case !v.bearer:
		detail = "Authorization holds no API key; send it as Authorization: Bearer bh_..."
	case errors.Is(v.err, keys.ErrExpired):
		detail = "the API key has expired; ask for another one"
	}
	g.challenge(w, `error="invalid_token"`, problem.Of(http.StatusUnauthorized, detail))
}

func (g *Guard) challenge(w http.ResponseWriter, what string, p *problem.Problem) {
	scheme := `Bearer realm="bellhop"`
	if what != "" {
		scheme += ", " + what
	}
	w.Header().Set("WWW-Authenticate", scheme)
	g.refuse(w, RejectedAuth, p)
}

// Stands tells whether the key that the request was admitted with is still good. An answer that goes on, such as a stream, asks before
// each part. While keys can't be checked it goes on.
func (g *Guard) Stands(ctx context.Context) bool {
	key, admitted := keys.FromContext(ctx)
	err := g.keys.Stands(ctx, key)
	return admitted && !errors.Is(err, keys.ErrUnknown) && !errors.Is(err, keys.ErrExpired)
}

// identify finds out whose token the request shows.
func (v *visit) identify(r *http.Request, store *keys.Store) {
	header := r.Header["Authorization"]
	if len(header) == 0 {
		return
	}
	v.token, v.err = true, keys.ErrUnknown
	scheme, text, _ := strings.Cut(header[0], " ")
	if len(header) > 1 || !strings.EqualFold(scheme, "Bearer") {
		return
	}
	v.bearer = true
	v.key, v.err = store.Verify(r.Context(), strings.TrimSpace(text))
}
