package gateway

import (
	"context"
	"fmt"
	"net/http"
	"net/http/pprof"
	"time"
)

// pingWithin bounds the look at Redis of a probe, below what orchestrators wait.
const pingWithin = 800 * time.Millisecond

// Private serves the private address: /healthz while the process works, /readyz while it takes requests, /metrics and /debug/pprof.
func (g *Gateway) Private() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answerProbe(w, "") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { answerProbe(w, g.unready(r.Context())) })
	if g.deps.Metrics != nil {
		mux.Handle("GET /metrics", g.deps.Metrics)
	}
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler, pattern := mux.Handler(r)
		if pattern == "" {
			writeUnrouted(w, r, handler)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// unready tells why the gateway should get no requests, "" if it should.
func (g *Gateway) unready(ctx context.Context) string {
	select {
	case <-g.draining:
		return "draining"
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, pingWithin)
	defer cancel()
	if err := g.deps.Redis.Ping(ctx).Err(); err != nil {
		return "Redis does not answer: " + err.Error()
	}
	return ""
}

func answerProbe(w http.ResponseWriter, fault string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if fault != "" {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, fault)
		return
	}
	fmt.Fprintln(w, "ok")
}
