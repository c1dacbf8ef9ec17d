package tasks_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

func TestWebhookRetry(t *testing.T) {
	t.Parallel()
	total := time.Duration(0)
	for n, want := range []time.Duration{
		5 * time.Second, 5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour,
		20 * time.Hour, 24 * time.Hour, 24 * time.Hour,
	} {
		seen := make(map[time.Duration]bool)
		for range 100 {
			got := tasks.WebhookRetry(n, nil)
			if got < want || got > want+want/10 {
				t.Fatalf("failure %d: waits %v, want %v and up to a tenth more", n, got, want)
			}
			seen[got] = true
		}
		if len(seen) < 50 {
			t.Errorf("failure %d: %d different waits of 100: jobs that failed together come back together", n, len(seen))
		}
		if n >= 1 && n <= tasks.DeliverWebhook.Definition().Defaults.MaxRetry {
			total += want
		}
	}
	if total < 72*time.Hour {
		t.Errorf("gives up after %v", total)
	}
	if d := tasks.WebhookRetry(1000, nil); d < 24*time.Hour {
		t.Errorf("failure 1000: waits %v", d)
	}
}

func TestOutgoingSchemas(t *testing.T) {
	t.Parallel()
	event := `{"specversion":"1.0","id":"1","source":"/","type":"t","data":{"a":[1,null]}}`
	for _, test := range []struct {
		d              job.Definition
		payload, fault string
	}{
		{tasks.DeliverWebhook.Definition(), `{"endpoint":"a","event":` + event + `}`, ""},
		{tasks.DeliverWebhook.Definition(), `{"url":"https://a.example","signer":"s","json":[1]}`, ""},
		{tasks.DeliverWebhook.Definition(), `{"endpoints":["a"]}`, `no field "endpoints"`},
		{tasks.DeliverWebhook.Definition(), `{"endpoint":7}`, "endpoint"},
		{tasks.FanOutWebhook.Definition(), `{"event":` + event + `}`, ""},
		{tasks.FanOutWebhook.Definition(), `{"endpoints":["a","b"],"json":null,"send":"data"}`, ""},
		{tasks.FanOutWebhook.Definition(), `{"endpoints":"a"}`, "endpoints"},
		{tasks.SendEmail.Definition(), `{"to":["a@x.example"],"subject":"s","text":"t","headers":{"X-A":"b"}}`, ""},
		{tasks.SendEmail.Definition(), `{"to":["a@x.example"],"text":"t"}`, `field "subject" is missing`},
		{tasks.SendEmail.Definition(), `{"to":"a@x.example","subject":"s"}`, "to"},
	} {
		_, err := test.d.Request([]byte(test.payload))
		switch {
		case test.fault == "" && err != nil:
			t.Errorf("%s: %v", test.payload, err)
		case test.fault != "" && (err == nil || !strings.Contains(err.Error(), test.fault)):
			t.Errorf("%s: got %v, want an error with %q", test.payload, err, test.fault)
		}
	}
}

func TestWebhookPayloadsKeepNumbers(t *testing.T) {
	t.Parallel()
	const text = `{"event":{"data":12345678901234567890},"json":null}`
	var d tasks.WebhookDelivery
	var f tasks.WebhookFanout
	for _, v := range []any{&d, &f} {
		if err := json.Unmarshal([]byte(text), v); err != nil {
			t.Fatal(err)
		}
	}
	want := json.RawMessage(`{"data":12345678901234567890}`)
	if diff := cmp.Diff([]any{want, nil, want, nil}, []any{d.Event, d.JSON, f.Event, f.JSON}); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
