// Package telemetry is what a process tells of itself to Prometheus. It attaches from outside: the packages on an event's path
// know small observers of their own, and this one implements them. Only mains import it.
//
// No label holds an id, nor anything else that a stranger makes up: routes are the patterns that were registered, hooks the names
// that were configured. Table lists every metric of bellhop's own.
package telemetry

import (
	"log/slog"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/bellhop-dev/bellhop/internal/version"
)

// Metric is a row of the table of metrics.
type Metric struct {
	Name   string
	Kind   string // counter, gauge or histogram
	Labels []string
	Help   string
}

// The metrics of bellhop's own. Names and labels are a contract with dashboards and alerts.
var (
	buildInfo   = Metric{"bellhop_build_info", "gauge", []string{"version", "go"}, "Always 1; the labels tell the build."}
	requests    = Metric{"bellhop_http_requests_total", "counter", []string{"route", "method", "status"}, "Requests answered, by the route's pattern and the status' class (2xx ...)."}
	duration    = Metric{"bellhop_http_request_duration_seconds", "histogram", []string{"route", "method"}, "Time from a request's headers to the end of its answer; streams and waits included."}
	inFlight    = Metric{"bellhop_http_requests_in_flight", "gauge", nil, "Requests at work."}
	rejected    = Metric{"bellhop_http_rejected_total", "counter", []string{"reason"}, "Requests and connections that were refused before a handler saw them."}
	streams     = Metric{"bellhop_streams_open", "gauge", nil, "Streams of events that clients hold open."}
	hooks       = Metric{"bellhop_hooks_total", "counter", []string{"hook", "outcome"}, "Webhooks answered, by the hook's configured name (none: no such hook) and what came of them."}
	hookSeconds = Metric{"bellhop_hook_duration_seconds", "histogram", []string{"hook"}, "Time from a webhook's headers to its answer."}
	published   = Metric{"bellhop_events_total", "counter", []string{"outcome"}, "Events that this process published: published, duplicate (was stored before), refused (is invalid or too large, or the stream is full), failed (Redis did not confirm it)."}
)

// Table lists the metrics of bellhop's own; go_* and process_* come beside them.
func Table() []Metric {
	return []Metric{buildInfo, requests, duration, inFlight, rejected, streams, hooks, hookSeconds, published}
}

// Most answers take milliseconds; one that waits for a job takes up to a minute.
var buckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}

// Registry is the metrics of one process. All of them are there from the start, at zero.
type Registry struct {
	reg *prometheus.Registry
	log *slog.Logger

	once      sync.Once
	publisher *prometheus.CounterVec
}

// New returns the registry of a process, with what its runtime and its build tell. A nil log is slog.Default().
func New(log *slog.Logger) *Registry {
	if log == nil {
		log = slog.Default()
	}
	r := &Registry{reg: prometheus.NewRegistry(), log: log}
	r.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r.gauge(buildInfo).WithLabelValues(version.Short(), runtime.Version()).Set(1)
	return r
}

// Register adds a collector, such as a user's own.
func (r *Registry) Register(c prometheus.Collector) error { return r.reg.Register(c) }

// Gatherer gives the metrics to whoever exports them elsewhere.
func (r *Registry) Gatherer() prometheus.Gatherer { return r.reg }

// scrapeWithin bounds a scrape; Prometheus itself gives up after 10s.
const scrapeWithin = 8 * time.Second

// Handler serves GET /metrics. It belongs on a private address.
func (r *Registry) Handler() http.Handler {
	return promhttp.HandlerFor(r.reg, promhttp.HandlerOpts{
		ErrorLog:            scrapeLog{r.log},
		ErrorHandling:       promhttp.ContinueOnError, // half of the metrics are better than none
		MaxRequestsInFlight: 4,
		Timeout:             scrapeWithin,
		EnableOpenMetrics:   true,
	})
}

type scrapeLog struct{ log *slog.Logger }

func (l scrapeLog) Println(what ...any) { l.log.Warn("metrics are incomplete", "errors", what) }

func (r *Registry) counter(m Metric) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: m.Name, Help: m.Help}, m.Labels)
	r.reg.MustRegister(c)
	return c
}

func (r *Registry) gauge(m Metric) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: m.Name, Help: m.Help}, m.Labels)
	r.reg.MustRegister(g)
	return g
}

func (r *Registry) histogram(m Metric) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: m.Name, Help: m.Help, Buckets: buckets}, m.Labels)
	r.reg.MustRegister(h)
	return h
}

// few lets a label have so many values and calls the rest "other": a mistake elsewhere must not fill Prometheus.
type few struct {
	mu    sync.RWMutex
	known map[string]bool
}

const maxValues = 200

func (f *few) value(text string) string {
	f.mu.RLock()
	known := f.known[text]
	f.mu.RUnlock()
	if known {
		return text
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.known) >= maxValues {
		return "other"
	}
	if f.known == nil {
		f.known = make(map[string]bool)
	}
	f.known[text] = true
	return text
}
