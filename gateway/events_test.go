package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	ce "github.com/cloudevents/sdk-go/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/problem"
	"github.com/bellhop-dev/bellhop/internal/redistest"
)

const paid = `{"specversion":"1.0","type":"com.acme.paid","source":"/shop","id":"p-1","data":{"cents":5}}`

func structuredly(d *door, body string, headers ...string) answer {
	return d.call("POST", "/v1/events", keys.Publish, body, append([]string{"Content-Type: " + mediaStructured}, headers...)...)
}

// sent sends a request that the SDK has made.
func (d *door) sent(req *http.Request) answer {
	d.t.Helper()
	req.Header.Set("Authorization", "Bearer "+d.tokens[keys.Publish])
	resp, err := d.client.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return answer{d.t, resp.StatusCode, resp.Header, body}
}

// sdkEvents are events of each kind, made by the CloudEvents SDK.
func sdkEvents(t *testing.T) []ce.Event {
	t.Helper()
	var list []ce.Event
	for i, data := range []struct {
		contentType string
		data        any
	}{
		{ce.ApplicationJSON, map[string]any{"n": 1.5, "deep": []any{"a", nil, true}}},
		{ce.TextPlain, "plain text, ümläute"},
		{"application/octet-stream", []byte{0, 1, 0xff, 0xfe}},
		{"text/json", json.RawMessage(`{"a":1}`)}, // the SDK reads no +json but its own
	} {
		e := ce.NewEvent()
		e.SetID(fmt.Sprintf("id %d/ü", i))
		e.SetType("com.acme.sdk")
		e.SetSource("https://acme.example/shop?x=1")
		e.SetSubject("orders/4711")
		e.SetTime(time.Date(2026, 3, 4, 5, 6, 7, 89_000_000, time.UTC))
		e.SetDataSchema("https://acme.example/schema")
		e.SetExtension("acmetrace", "a b\"c")
		e.SetExtension("acmecount", 7)
		if err := e.SetData(data.contentType, data.data); err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
	return list
}

// What the SDK of CloudEvents sends in each mode arrives as the SDK meant it.
func TestPublishFromTheSDK(t *testing.T) {
	t.Parallel()
	d := setup(t)
	check := func(t *testing.T, published PublishedEvent, sent ce.Event, mode string) {
		t.Helper()
		got := want[StoredEvent](t, d.call("GET", "/v1/events/"+published.StreamID, keys.Read, nil), 200)
		var back ce.Event
		if err := json.Unmarshal(got.Event, &back); err != nil {
			t.Fatal(err)
		}
		if mode == "binary" { // headers know no types
			sent.SetExtension("acmecount", "7")
		}
		if diff := cmp.Diff(sent.Context.AsV1(), back.Context.AsV1()); diff != "" {
			t.Errorf("%s %s (-sent +got):\n%s", mode, sent.ID(), diff)
		}
		if !bytes.Equal(sent.Data(), back.Data()) {
			t.Errorf("%s %s: data %q became %q", mode, sent.ID(), sent.Data(), back.Data())
		}
		if got.StoredAt.IsZero() || got.StreamID != published.StreamID {
			t.Errorf("it is told to be %+v", got)
		}
	}
	for _, mode := range []string{"structured", "binary"} {
		for _, e := range sdkEvents(t) {
			e.SetID(mode + " " + e.ID())
			ctx := binding.WithForceStructured(t.Context())
			if mode == "binary" {
				ctx = binding.WithForceBinary(t.Context())
			}
			req, err := cehttp.NewHTTPRequestFromEvent(ctx, d.url+"/v1/events", e)
			if err != nil {
				t.Fatal(err)
			}
			a := d.sent(req)
			published := want[PublishedEvent](t, a, 201)
			if a.header.Get("Location") != "/v1/events/"+published.StreamID || published.ID != e.ID() || published.Duplicate {
				t.Errorf("answered %+v %v", published, a.header)
			}
			check(t, published, e, mode)
		}
	}
	list := sdkEvents(t)
	req, err := cehttp.NewHTTPRequestFromEvents(t.Context(), d.url+"/v1/events", list)
	if err != nil {
		t.Fatal(err)
	}
	batch := want[PublishedBatch](t, d.sent(req), 200)
	if batch.Stored != len(list) || len(batch.Results) != len(list) {
		t.Fatalf("the batch: %+v", batch)
	}
	for i, r := range batch.Results {
		if r.Status != 201 || r.Event == nil {
			t.Fatalf("the batch's %d: %+v", i, r)
		}
		check(t, *r.Event, list[i], "batch")
	}
}

func TestPublishDuplicates(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		d := setupOver(t, rdb)
		first := want[PublishedEvent](t, structuredly(d, paid), 201)
		again := want[PublishedEvent](t, structuredly(d, paid), 200)
		if !again.Duplicate || again.StreamID != first.StreamID {
			t.Errorf("again: %+v, first %+v", again, first)
		}
		batch := want[PublishedBatch](t, d.call("POST", "/v1/events", keys.Publish,
			`[`+paid+`,{"specversion":"1.0","type":"a","source":"/s"},{"specversion":"1.0","type":"","source":"/s"},7,`+paid+`]`,
			"Content-Type: "+mediaBatch), 207)
		var statuses []int
		for _, r := range batch.Results {
			statuses = append(statuses, r.Status)
		}
		if diff := cmp.Diff([]int{200, 201, 422, 422, 200}, statuses); diff != "" || batch.Stored != 1 || batch.Duplicates != 2 || batch.Failed != 2 {
			t.Errorf("batch %+v (-want +got):\n%s", batch, diff)
		}
		if f := batch.Results[2].Problem.Errors; len(f) != 1 || f[0].Pointer != "#/2/type" {
			t.Errorf("the fault is at %+v", f)
		}
	})
}

func TestPublishWithoutID(t *testing.T) {
	t.Parallel()
	d := setup(t)
	body := `{"specversion":"1.0","type":"a","source":"/s"}`
	one, two := want[PublishedEvent](t, structuredly(d, body), 201), want[PublishedEvent](t, structuredly(d, body), 201)
	if one.ID == two.ID || one.ID == "" {
		t.Errorf("two events have the ids %q and %q", one.ID, two.ID)
	}
	keyed := structuredly(d, body, "Idempotency-Key: k")
	again := structuredly(d, body, "Idempotency-Key: k")
	if a, b := want[PublishedEvent](t, keyed, 201), want[PublishedEvent](t, again, 201); a != b || again.header.Get("Idempotent-Replayed") != "true" ||
		again.header.Get("Location") != keyed.header.Get("Location") {
		t.Errorf("%+v, again %+v %v", a, b, again.header)
	}
	want[problem.Problem](t, structuredly(d, paid, "Idempotency-Key: k"), 422)
	// In binary mode the headers are a part of the request.
	headers := []string{"ce-specversion: 1.0", "ce-type: a", "ce-source: /s", "Content-Type: text/plain", "Idempotency-Key: b"}
	first := want[PublishedEvent](t, d.call("POST", "/v1/events", keys.Publish, "x", headers...), 201)
	if again := want[PublishedEvent](t, d.call("POST", "/v1/events", keys.Publish, "x", headers...), 201); again != first {
		t.Errorf("%+v, again %+v", first, again)
	}
	want[problem.Problem](t, d.call("POST", "/v1/events", keys.Publish, "x", append(headers, "ce-subject: other")...), 422)
	// The gateway died before it recorded its answer: the event that is there is the client's own.
	if err := d.rdb.Del(t.Context(), idempotencyPrefix+first.ID).Err(); err != nil {
		t.Fatal(err)
	}
	if again := want[PublishedEvent](t, d.call("POST", "/v1/events", keys.Publish, "x", headers...), 201); again != first {
		t.Errorf("after a crash %+v, first %+v", again, first)
	}
}

func TestPublishNamesTheAttribute(t *testing.T) {
	t.Parallel()
	d := setup(t, func(c *Config, deps *Deps) {
		c.MaxBatch = 2
		var err error
		if deps.Events, err = events.NewClient(deps.Redis, events.Config{MaxEventBytes: 2000}); err != nil {
			t.Fatal(err)
		}
	})
	for _, test := range []struct {
		body, contentType, headers string
		status                     int
		place                      string
	}{
		{`{"specversion":"1.0","source":"/s"}`, mediaStructured, "", 422, "#/type"},
		{`{"specversion":"2.0","type":"a","source":"/s"}`, mediaStructured, "", 422, "#/specversion"},
		{`{"specversion":"1.0","type":"a","source":"/s","time":"now"}`, mediaStructured + "; charset=utf-8", "", 422, "#/time"},
		{`{"specversion":"1.0","type":"a","source":"/s","id":""}`, mediaStructured, "", 422, "#/id"},
		{`{"specversion":"1.0","type":"a","source":"/s","replaytrigger":"x"}`, mediaStructured, "", 422, "#/replaytrigger"},
		{`{"specversion":"1.0","type":"a","source":"/s","data":"` + strings.Repeat("x", 2000) + `"}`, mediaStructured, "", 413, "#"},
		{`{`, mediaStructured, "", 400, "#"},
		{`[]`, mediaStructured, "", 422, "#"},
		{``, mediaStructured, "", 400, ""},
		{`{}`, mediaBatch, "", 400, "#"},
		{`[1,2,3]`, mediaBatch, "", 422, "#"},
		{strings.Repeat("[", 100_000), mediaBatch, "", 400, "#"},
		{strings.Repeat(`{"a":`, 100_000), mediaStructured, "", 400, "#"},
		{`{}`, "application/json", "", 415, "Content-Type"},
		{`x`, "application/cloudevents+avro", "", 415, "Content-Type"},
		{`x`, "no media type", "ce-id: 1", 415, "Content-Type"},
		{`x`, "text/plain", "ce-type: a|ce-source: /s", 422, "ce-specversion"},
		{`x`, "text/plain", "ce-specversion: 1.0|ce-source: /s", 422, "ce-type"},
		{`x`, "text/plain", "ce-specversion: 1.0|ce-type: a|ce-source: /s|ce-time: x", 422, "ce-time"},
		{`x`, "text/plain", "ce-specversion: 1.0|ce-type: a|ce-source: /s|ce-subject: 100%", 422, "ce-subject"},
		{`x`, "text/plain", "ce-specversion: 1.0|ce-type: a|ce-source: /s|ce-replaytrigger: t", 422, "ce-replaytrigger"},
		{`x`, "application/json", "ce-specversion: 1.0|ce-type: a|ce-source: /s", 422, "#"},
		{`x`, "text/plain", "ce-specversion: 1.0|ce-type: a|ce-source: /s|ce-datacontenttype: a/b", 422, "ce-datacontenttype"},
	} {
		headers := []string{"Content-Type: " + test.contentType}
		if test.headers != "" {
			headers = append(headers, strings.Split(test.headers, "|")...)
		}
		began := time.Now()
		p := want[problem.Problem](t, d.call("POST", "/v1/events", keys.Publish, test.body, headers...), test.status)
		place := ""
		if len(p.Errors) > 0 {
			place = p.Errors[0].Pointer + p.Errors[0].Header
		}
		if place != test.place || p.Detail == "" {
			t.Errorf("%.60q %s: told at %q, want %q: %+v", test.body, test.headers, place, test.place, p)
		}
		t.Logf("%.40q: %v: %s", test.body, time.Since(began).Round(time.Millisecond), p.Detail)
	}
	if n := d.rdb.Exists(t.Context(), events.DefaultPrefix+"stream").Val(); n != 0 {
		t.Error("something was stored")
	}
}

func TestPublishIntoAFullStream(t *testing.T) {
	t.Parallel()
	d := setup(t, func(_ *Config, deps *Deps) {
		var err error
		if deps.Events, err = events.NewClient(deps.Redis, events.Config{MaxEvents: 1}); err != nil {
			t.Fatal(err)
		}
	})
	want[PublishedEvent](t, structuredly(d, paid), 201)
	other := strings.Replace(paid, "p-1", "p-2", 1)
	a := structuredly(d, other)
	if p := want[problem.Problem](t, a, 503); p.Type != "urn:bellhop:problem:stream-full" || a.header.Get("Retry-After") == "" {
		t.Errorf("full: %+v %v", p, a.header)
	}
	batch := want[PublishedBatch](t, d.call("POST", "/v1/events", keys.Publish, "["+paid+","+other+"]", "Content-Type: "+mediaBatch), 207)
	if batch.Results[0].Status != 200 || batch.Results[1].Status != 503 {
		t.Errorf("batch: %+v", batch)
	}
	want[problem.Problem](t, d.call("POST", "/v1/events", keys.Publish, "["+other+"]", "Content-Type: "+mediaBatch), 503)
}

func TestEventsWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	d := setupOver(t, server.Client(), func(c *Config, _ *Deps) { c.RedisWithin = 300 * time.Millisecond })
	want[PublishedEvent](t, structuredly(d, paid), 201) // the keys are known now
	want[EventPage](t, d.call("GET", "/v1/events", keys.Read, nil), 200)
	server.Pause()
	defer server.Resume()
	for _, ask := range []func() answer{
		func() answer { return structuredly(d, strings.Replace(paid, "p-1", "p-2", 1)) },
		func() answer { return d.call("GET", "/v1/events", keys.Read, nil) },
		func() answer { return d.call("GET", "/v1/events/stream", keys.Read, nil) },
	} {
		began := time.Now()
		a := ask()
		if p := want[problem.Problem](t, a, 503); a.header.Get("Retry-After") == "" || p.Detail == "" {
			t.Errorf("%+v %v", p, a.header)
		}
		t.Logf("answered after %v", time.Since(began).Round(time.Millisecond))
	}
}

func TestListEvents(t *testing.T) {
	t.Parallel()
	d := setup(t)
	for i := range 7 {
		typ := "com.acme.even"
		if i%2 > 0 {
			typ = "com.acme.odd"
		}
		want[PublishedEvent](t, structuredly(d, fmt.Sprintf(`{"specversion":"1.0","type":%q,"source":"/s/%d","id":"e%d"}`, typ, i%3, i)), 201)
	}
	ids := func(query string) (list []string) {
		t.Helper()
		for cursor := ""; ; {
			page := want[EventPage](t, d.call("GET", "/v1/events?limit=2&"+query+"&cursor="+url.QueryEscape(cursor), keys.Read, nil), 200)
			for _, e := range page.Events {
				var id struct{ ID string }
				if err := json.Unmarshal(e.Event, &id); err != nil {
					t.Fatal(err)
				}
				list = append(list, id.ID)
			}
			if cursor = page.Next; cursor == "" {
				return list
			}
		}
	}
	hourAgo, inAnHour := url.QueryEscape(time.Now().Add(-time.Hour).Format(time.RFC3339)), url.QueryEscape(time.Now().Add(time.Hour).Format(time.RFC3339))
	for query, expected := range map[string]string{
		"":                                   "e6 e5 e4 e3 e2 e1 e0",
		"order=oldest":                       "e0 e1 e2 e3 e4 e5 e6",
		"type=com.acme.odd":                  "e5 e3 e1",
		"type=com.*.even&order=oldest":       "e0 e2 e4 e6",
		"source=/s/1":                        "e4 e1",
		"since=" + hourAgo + "&order=oldest": "e0 e1 e2 e3 e4 e5 e6",
		"since=" + inAnHour:                  "",
		"until=" + hourAgo:                   "",
	} {
		if got := strings.Join(ids(query), " "); got != expected {
			t.Errorf("%s: got %q, want %q", query, got, expected)
		}
	}
	for query, parameter := range map[string]string{
		"type=a.**.b": "type", "cursor=x": "cursor", "limit=0": "limit", "limit=501": "limit", "order=up": "order", "since=now": "since", "typ=a": "typ",
		"since=" + inAnHour + "&until=" + hourAgo: "until",
	} {
		p := want[problem.Problem](t, d.call("GET", "/v1/events?"+query, keys.Read, nil), 422)
		if len(p.Errors) != 1 || p.Errors[0].Parameter != parameter {
			t.Errorf("%s: %+v", query, p)
		}
	}
	for _, id := range []string{"0-1", "x", "1700000000000-0", "-", "+"} {
		want[problem.Problem](t, d.call("GET", "/v1/events/"+id, keys.Read, nil), 404)
	}
}

func TestModeOf(t *testing.T) {
	t.Parallel()
	h := http.Header{"Content-Type": {"application/json"}, "Ce-Type": {"a"}}
	if mode, p := modeOf(h); mode != binary || p != nil {
		t.Errorf("binary: %v %v", mode, p)
	}
	if mode, p := modeOf(http.Header{"Ce-Id": {"a"}}); mode != binary || p != nil {
		t.Errorf("binary without a content type: %v %v", mode, p)
	}
	if !slices.Equal(sortedNames(h), []string{"Ce-Type", "Content-Type"}) {
		t.Error("names are not sorted")
	}
}
