package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// engine is one of those compared.
type engine interface {
	// open connects a producer to the store at addr.
	open(ctx context.Context, addr string) (producer, error)

	// worker makes a worker whose jobs do nothing but tell handle their number.
	worker(ctx context.Context, addr string, spec workerSpec, handle func(n int64)) (runnable, error)
}

// producer brings jobs in. All its methods but close may be called concurrently, and return once the store has the jobs.
type producer interface {
	enqueue(ctx context.Context, queue string, n int64) error
	schedule(ctx context.Context, n int64, at time.Time) error

	// bulk enqueues jobs first..first+count-1 to the default queue, the fastest way there is.
	bulk(ctx context.Context, first int64, count int) error
	close()
}

// runnable runs jobs until ctx ends.
type runnable func(ctx context.Context) error

type workerSpec struct {
	Concurrency int            `json:"concurrency"`
	Queues      map[string]int `json:"queues,omitempty"` // weights; none is the default queue alone
}

const (
	taskName     = "bench:noop"
	defaultQueue = "default"
)

// engineNamed returns the engine of a name given with -engines.
func engineNamed(name string) (engine, error) {
	kind, inner, _ := strings.Cut(name, ":")
	switch {
	case name == "asynq":
		return stockAsynq{}, nil
	case name == "river":
		return riverEngine{}, nil
	case kind == "bellhop":
		if inner == "" {
			inner = "bellhop"
		}
		return bellhopEngine{inner}, checkBellhop(inner)
	}
	return nil, fmt.Errorf("engine %q is unknown: there are asynq, bellhop, bellhop:ENGINE and river", name)
}

// onRedis tells whether the engine's store is Redis.
func onRedis(name string) bool { return name != "river" }

func isBellhop(name string) bool { return strings.HasPrefix(name, "bellhop") }

// payload is 100 bytes of JSON, which every engine's handler decodes.
type payload struct {
	N   int64  `json:"n"`
	Pad string `json:"pad"`
}

const payloadBytes = 100

var padding = strings.Repeat("x", payloadBytes)

func newPayload(n int64) payload {
	around := len(`{"n":,"pad":""}`) + len(strconv.FormatInt(n, 10))
	return payload{N: n, Pad: padding[:payloadBytes-around]}
}

func (p payload) encode() []byte {
	data, err := json.Marshal(p)
	if err != nil {
		panic(err) // a number and a text always encode
	}
	return data
}

// weights are the spec's queues in a fixed order.
func (s workerSpec) weights() (names []string, weights map[string]int) {
	weights = s.Queues
	if len(weights) == 0 {
		weights = map[string]int{defaultQueue: 1}
	}
	for name := range weights {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, weights
}
