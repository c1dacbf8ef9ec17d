package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/triggers"
	"github.com/bellhop-dev/bellhop/worker"
)

// start is when a handler began with a job.
type start struct {
	name string
	at   time.Time
}

// watchStarts runs a worker whose trigger greets whoever an event of type test.arrived names, and tells when each handler starts.
func (d *door) watchStarts(n int) <-chan start {
	t := d.t
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	starts := make(chan start, n)
	w, err := worker.New(d.rdb, worker.Config{Queues: []worker.Queue{{Name: "greetings", Weight: 1}}, Logger: log, Grace: time.Second},
		greetTask.HandledBy(func(_ context.Context, p greet) error {
			starts <- start{p.Name, time.Now()}
			return nil
		}))
	if err != nil {
		t.Fatal(err)
	}
	rules := []triggers.Trigger{{Name: "greet", On: "test.arrived", Run: "test:greet", With: map[string]any{"name": "${event.data.name}"}}}
	set, err := triggers.Compile(rules, d.gateway.deps.Catalog, triggers.Config{})
	if err != nil {
		t.Fatal(err)
	}
	feed, err := triggers.NewFeed(set, d.gateway.deps.Events, job.NewClient(d.rdb), log)
	if err != nil {
		t.Fatal(err)
	}
	w.Feed("triggers", feed)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	return starts
}

// How long it takes on an idle system from the 2xx of an event, or of a job, to the start of its handler. The times are printed; what is
// asserted is that each starts once.
//
//nolint:paralleltest // others would disturb what is measured
func TestAcceptedToStarted(t *testing.T) {
	const warm, n = 20, 300
	d := setup(t)
	starts := d.watchStarts(2 * (warm + n))
	for what, post := range map[string]func(name string) answer{
		"event": func(name string) answer {
			return d.call(http.MethodPost, "/v1/events", keys.Publish,
				map[string]any{"specversion": "1.0", "type": "test.arrived", "source": "/test", "id": name, "data": greet{Name: name}},
				"Content-Type: application/cloudevents+json")
		},
		"job": func(name string) answer {
			return d.call(http.MethodPost, "/v1/jobs", keys.Enqueue, map[string]any{"task": "test:greet", "payload": greet{Name: name}})
		},
	} {
		var fromAnswer, fromRequest []time.Duration
		for i := range warm + n {
			name := fmt.Sprint(what, i)
			sent := time.Now()
			a := post(name)
			answered := time.Now()
			if a.status != http.StatusCreated {
				t.Fatalf("%s: %d %s", name, a.status, a.body)
			}
			select {
			case s := <-starts:
				if s.name != name {
					t.Fatalf("%s started, want %s", s.name, name)
				}
				if i >= warm {
					fromAnswer, fromRequest = append(fromAnswer, s.at.Sub(answered)), append(fromRequest, s.at.Sub(sent))
				}
			case <-time.After(limit):
				t.Fatalf("%s does not start", name)
			}
		}
		t.Logf("%s accepted -> handler started: p50 %v, p99 %v; request sent -> handler started: p50 %v, p99 %v (%d times, idle system)",
			what, quantile(fromAnswer, 50), quantile(fromAnswer, 99), quantile(fromRequest, 50), quantile(fromRequest, 99), n)
	}
	select {
	case s := <-starts:
		t.Errorf("%s started twice", s.name)
	default:
	}
}

func quantile(of []time.Duration, percent int) time.Duration {
	slices.Sort(of)
	return of[len(of)*percent/100].Round(time.Microsecond)
}
