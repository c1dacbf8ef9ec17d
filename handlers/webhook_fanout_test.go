package handlers_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/handlers"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

func (h *hooks) fanOut(ctx context.Context, j *job.Job, p tasks.WebhookFanout) error {
	h.Helper()
	data, err := json.Marshal(p)
	if err != nil {
		h.Fatal(err)
	}
	if err := tasks.FanOutWebhook.Definition().Schema.Check(data); err != nil {
		h.Fatalf("payload %s: %v", data, err)
	}
	j.Payload = data
	return tasks.FanOutWebhook.HandledBy(h.FanOut).Handle(job.NewContext(ctx, j), j)
}

func fannedOut(t *testing.T, j *job.Job) []tasks.WebhookJob {
	t.Helper()
	var r tasks.WebhookFannedOut
	if err := json.Unmarshal(j.Result(), &r); err != nil {
		t.Fatalf("result %q: %v", j.Result(), err)
	}
	return r.Deliveries
}

func threeEndpoints() handlers.WebhookConfig {
	endpoint := func(name string, disabled bool, patterns ...string) handlers.WebhookEndpoint {
		return handlers.WebhookEndpoint{Name: name, URL: "https://hooks.example.com", Secrets: []string{secretA}, Events: patterns, Disabled: disabled}
	}
	return handlers.WebhookConfig{Endpoints: []handlers.WebhookEndpoint{
		endpoint("c", false, "com.acme.order.*"), endpoint("a", false, "**"), endpoint("b", false), endpoint("off", true, "**"),
	}}
}

// Run again after a crash, a fan-out that no event led to makes no second delivery either; and it enqueues what the crash kept it from.
func TestWebhookFanOutRunsAgain(t *testing.T) {
	t.Parallel()
	h := newHooks(t, threeEndpoints())
	p := tasks.WebhookFanout{Event: json.RawMessage(orderPaid), Send: "data"}
	first := &job.Job{ID: "f-1", Queue: "hooks", Headers: map[string]string{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}
	for range 2 {
		if err := h.fanOut(t.Context(), first, p); err != nil {
			t.Fatal(err)
		}
	}
	fleet := fleet.New(h.rdb)
	if b, err := fleet.Backlog(t.Context(), "hooks"); err != nil || b.Pending != 2 {
		t.Errorf("backlog %+v, %v; want a delivery to a and one to c", b, err)
	}
	jobs := fannedOut(t, first)
	for i, name := range []string{"a", "c"} {
		if jobs[i].Endpoint != name || jobs[i].Queue != "hooks" {
			t.Errorf("delivery %d: %+v, want one to %s", i, jobs[i], name)
		}
		stored, err := fleet.Job(t.Context(), "hooks", jobs[i].Job)
		if err != nil {
			t.Fatal(err)
		}
		var got tasks.WebhookDelivery
		if err := json.Unmarshal(stored.Payload, &got); err != nil {
			t.Fatal(err)
		}
		want := tasks.WebhookDelivery{Endpoint: name, Event: json.RawMessage(compact(t, orderPaid)), Send: "data"}
		if diff := cmp.Diff(want, got); diff != "" || stored.Task != "webhook:deliver" {
			t.Errorf("%s (-want +got):\n%s", stored.Task, diff)
		}
	}
	other := &job.Job{ID: "f-2", Queue: "hooks"}
	if err := h.fanOut(t.Context(), other, tasks.WebhookFanout{JSON: json.RawMessage(`[1]`), Endpoints: []string{"b", "a", "b"}}); err != nil {
		t.Fatal(err)
	}
	if got := fannedOut(t, other); len(got) != 2 || got[0].Endpoint != "a" || got[1].Endpoint != "b" || got[0].Job == jobs[0].Job {
		t.Errorf("deliveries %+v", got)
	}
}

func TestWebhookFanOutToNobody(t *testing.T) {
	t.Parallel()
	h := newHooks(t, handlers.WebhookConfig{})
	j := &job.Job{ID: "f", Queue: "hooks"}
	if err := h.fanOut(t.Context(), j, tasks.WebhookFanout{Event: json.RawMessage(orderPaid)}); err != nil {
		t.Fatal(err)
	}
	if string(j.Result()) != `{"deliveries":[]}` {
		t.Errorf("result %s", j.Result())
	}
}

func TestWebhookFanOutRefuses(t *testing.T) {
	t.Parallel()
	h := newHooks(t, threeEndpoints())
	event := json.RawMessage(orderPaid)
	for name, test := range map[string]struct {
		payload tasks.WebhookFanout
		part    string
	}{
		"nothing":    {tasks.WebhookFanout{}, "nothing to send"},
		"two bodies": {tasks.WebhookFanout{Event: event, JSON: 1}, "event and json are both given"},
		"no names":   {tasks.WebhookFanout{JSON: 1}, "name the endpoints"},
		"no event":   {tasks.WebhookFanout{Event: json.RawMessage(`{}`)}, "event: "},
		"send":       {tasks.WebhookFanout{Event: event, Send: "x"}, "send: "},
	} {
		err := h.fanOut(t.Context(), &job.Job{ID: "f", Queue: "q"}, test.payload)
		if !job.IsDiscard(err) || !strings.Contains(err.Error(), test.part) {
			t.Errorf("%s: got %v, want a discard with %q", name, err, test.part)
		}
	}
	wantRetry(t, h.fanOut(t.Context(), &job.Job{ID: "f", Queue: "q"}, tasks.WebhookFanout{Event: event, Endpoints: []string{"a", "d"}}), `"d" is not in handlers.webhooks.endpoints of this worker: it has a, b, c, off`)
	if err := h.rdb.Close(); err != nil {
		t.Fatal(err)
	}
	wantRetry(t, h.fanOut(t.Context(), &job.Job{ID: "f", Queue: "q"}, tasks.WebhookFanout{Event: event}), "enqueue the delivery to endpoint a")
}
