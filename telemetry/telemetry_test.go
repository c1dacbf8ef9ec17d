package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/gateway/guard"
	"github.com/bellhop-dev/bellhop/sources/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func scrape(t *testing.T, r *Registry) string {
	t.Helper()
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// answers are what a publisher says to one event each.
type answers []events.Published

func (a answers) Publish(context.Context, ...*events.Event) ([]events.Published, error) {
	return a, nil
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	r := New(nil)
	h, hook := r.HTTP(), r.Hooks()
	h.RequestStarted()
	h.RequestStarted()
	h.RequestDone("/v1/events", http.MethodPost, http.StatusAccepted, 3*time.Millisecond)
	h.Rejected(guard.RejectedSize)
	h.StreamOpened()
	h.StreamOpened()
	h.StreamClosed()
	hook.HookAnswered(webhook.Answer{Hook: "github", Outcome: webhook.Stored, Took: 30 * time.Millisecond})
	hook.HookAnswered(webhook.Answer{Outcome: webhook.UnknownHook})
	list := answers{
		{StreamID: "1-0"},
		{Duplicate: true},
		{Err: fmt.Errorf("x: %w", events.ErrInvalid)},
		{Err: events.ErrTooLarge},
		{Err: events.ErrFull},
		{Err: errors.New("redis")},
	}
	for range 2 { // two publishers of a process count together
		if _, err := r.Publisher(list).Publish(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	text := scrape(t, r)
	for _, line := range []string{
		`bellhop_http_requests_total{method="POST",route="/v1/events",status="2xx"} 1`,
		`bellhop_http_request_duration_seconds_bucket{method="POST",route="/v1/events",le="0.005"} 1`,
		`bellhop_http_request_duration_seconds_bucket{method="POST",route="/v1/events",le="0.0025"} 0`,
		`bellhop_http_requests_in_flight 1`,
		`bellhop_http_rejected_total{reason="size"} 1`,
		`bellhop_http_rejected_total{reason="auth"} 0`,
		`bellhop_streams_open 1`,
		`bellhop_hooks_total{hook="github",outcome="stored"} 1`,
		`bellhop_hooks_total{hook="none",outcome="unknown_hook"} 1`,
		`bellhop_hook_duration_seconds_count{hook="github"} 1`,
		`bellhop_events_total{outcome="published"} 2`,
		`bellhop_events_total{outcome="duplicate"} 2`,
		`bellhop_events_total{outcome="refused"} 6`,
		`bellhop_events_total{outcome="failed"} 2`,
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("%s is missing", line)
		}
	}
	for _, name := range []string{"bellhop_build_info{", "go_goroutines", "process_resident_memory_bytes"} {
		if !strings.Contains(text, "\n"+name) {
			t.Errorf("%s is missing", name)
		}
	}
	problems, err := testutil.GatherAndLint(r.Gatherer())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// The table is what a process tells, no more and no less.
func TestTable(t *testing.T) {
	t.Parallel()
	r := New(nil)
	h, hook := r.HTTP(), r.Hooks()
	r.Publisher(answers{})
	h.RequestStarted()
	h.RequestDone("/", http.MethodGet, http.StatusOK, 0)
	hook.HookAnswered(webhook.Answer{})
	families, err := r.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "bellhop_") {
			got[f.GetName()] = strings.ToLower(f.GetType().String()) + " " + f.GetHelp()
			for _, label := range f.GetMetric()[0].GetLabel() {
				if strings.Contains(label.GetName(), "id") {
					t.Errorf("%s: label %s", f.GetName(), label.GetName())
				}
			}
		}
	}
	want := make(map[string]string)
	for _, m := range Table() {
		want[m.Name] = m.Kind + " " + m.Help
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLabelsAreFew(t *testing.T) {
	t.Parallel()
	r := New(nil)
	h, hook := r.HTTP(), r.Hooks()
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range 1000 {
				name := fmt.Sprint(worker, "-", i)
				h.RequestStarted()
				h.RequestDone(name, http.MethodGet, i, 0)
				hook.HookAnswered(webhook.Answer{Hook: name, Outcome: webhook.Stored})
			}
		})
	}
	wg.Wait()
	if n := strings.Count(scrape(t, r), "bellhop_hooks_total{"); n != maxValues+1 {
		t.Errorf("%d hooks are told apart", n)
	}
	if n := testutil.CollectAndCount(h.duration); n != maxValues+1 {
		t.Errorf("%d routes are told apart", n)
	}
}
