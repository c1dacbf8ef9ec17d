package telemetry

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/bellhop-dev/bellhop/gateway/guard"
	"github.com/bellhop-dev/bellhop/sources/webhook"
)

// HTTP counts the requests of an HTTP service: a guard.Observer.
type HTTP struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	inFlight prometheus.Gauge
	rejected *prometheus.CounterVec
	streams  prometheus.Gauge
	routes   few
}

var _ guard.Observer = (*HTTP)(nil)

// HTTP adds the metrics of the process' HTTP service. It may be called once.
func (r *Registry) HTTP() *HTTP {
	h := &HTTP{
		requests: r.counter(requests),
		duration: r.histogram(duration),
		inFlight: r.gauge(inFlight).WithLabelValues(),
		rejected: r.counter(rejected),
		streams:  r.gauge(streams).WithLabelValues(),
	}
	for _, reason := range guard.Reasons() {
		h.rejected.WithLabelValues(string(reason))
	}
	return h
}

// RequestStarted counts a request that is at work.
func (h *HTTP) RequestStarted() { h.inFlight.Inc() }

// RequestDone counts a request that is answered.
func (h *HTTP) RequestDone(route, method string, status int, took time.Duration) {
	h.inFlight.Dec()
	route = h.routes.value(route)
	h.requests.WithLabelValues(route, method, class(status)).Inc()
	h.duration.WithLabelValues(route, method).Observe(took.Seconds())
}

// Rejected counts what the guard refused.
func (h *HTTP) Rejected(reason guard.Reason) { h.rejected.WithLabelValues(string(reason)).Inc() }

// StreamOpened counts a stream of events that is open until StreamClosed.
func (h *HTTP) StreamOpened() { h.streams.Inc() }

// StreamClosed counts one less.
func (h *HTTP) StreamClosed() { h.streams.Dec() }

func class(status int) string {
	if status < 100 || status > 599 {
		return "none" // the connection broke before there was an answer
	}
	return strconv.Itoa(status/100) + "xx"
}

// Hooks counts what becomes of webhooks: a webhook.Observer.
type Hooks struct {
	hooks   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	names   few
}

var _ webhook.Observer = (*Hooks)(nil)

// Hooks adds the metrics of webhooks. It may be called once.
func (r *Registry) Hooks() *Hooks {
	return &Hooks{hooks: r.counter(hooks), seconds: r.histogram(hookSeconds)}
}

// HookAnswered counts one.
func (h *Hooks) HookAnswered(a webhook.Answer) {
	name := "none"
	if a.Hook != "" {
		name = h.names.value(a.Hook)
	}
	h.hooks.WithLabelValues(name, string(a.Outcome)).Inc()
	h.seconds.WithLabelValues(name).Observe(a.Took.Seconds())
}
