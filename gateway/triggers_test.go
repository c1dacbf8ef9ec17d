package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/problem"
	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/triggers"
)

const greetOnVisit = `{"name":"greet","on":"com.acme.visit","when":"event.data.times > 0","run":"test:greet",
	"with":{"name":"${event.data.name}","times":"${event.data.times}"},"in":"10m","max_retry":0}`

func TestTriggersAreMadeChangedSwitchedAndDeleted(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		d := setupOver(t, rdb)
		empty := want[TriggerOverview](t, d.call("GET", "/v1/triggers", keys.Read, nil), 200)
		if diff := cmp.Diff(TriggerOverview{Triggers: []TriggerState{}, Workers: []TriggerWorker{}}, empty); diff != "" {
			t.Error(diff)
		}
		a := d.call("PUT", "/v1/triggers/greet?note=first", keys.Admin, greetOnVisit, "If-None-Match: *")
		made := want[TriggerState](t, a, http.StatusCreated)
		zero := 0
		wantMade := TriggerState{
			Name: "greet", Origin: "api", On: "com.acme.visit", Run: "test:greet", State: "pending", Revision: 1, By: "admin", Note: "first",
			Definition: &TriggerDefinition{
				Name: "greet", On: "com.acme.visit", When: "event.data.times > 0", Run: "test:greet", In: "10m", MaxRetry: &zero,
				With: json.RawMessage(`{"name":"${event.data.name}","times":"${event.data.times}"}`),
			},
		}
		times := cmpopts.IgnoreFields(TriggerState{}, "Created", "Changed")
		if diff := cmp.Diff(wantMade, made, times); diff != "" || made.Created.IsZero() || a.header.Get("ETag") != `"1"` {
			t.Errorf("made, ETag %s:\n%s", a.header.Get("ETag"), diff)
		}
		a = d.call("GET", "/v1/triggers/greet", keys.Read, nil)
		if diff := cmp.Diff(wantMade, want[TriggerState](t, a, 200), times); diff != "" || a.header.Get("ETag") != `"1"` {
			t.Error(diff)
		}

		// What was read is sent back, with a change: two editors don't overwrite each other.
		definition := made.Definition
		definition.Name, definition.When = "", ""
		a = d.call("PUT", "/v1/triggers/greet", keys.Admin, definition, `If-Match: "1"`)
		if changed := want[TriggerState](t, a, 200); changed.Revision != 2 || changed.Definition.When != "" || changed.Note != "" || !changed.Created.Equal(made.Created) {
			t.Errorf("changed to %+v", changed)
		}
		for _, headers := range [][]string{{`If-Match: "1"`}, {"If-None-Match: *"}} {
			p := want[problem.Problem](t, d.call("PUT", "/v1/triggers/greet", keys.Admin, greetOnVisit, headers...), http.StatusPreconditionFailed)
			if p.Type != "urn:bellhop:problem:changed-meanwhile" || !strings.Contains(p.Detail, "revision 2") {
				t.Errorf("%v: %+v", headers, p)
			}
		}
		for _, headers := range [][]string{{"If-Match: 2"}, {`If-Match: "x"`}, {`If-Match: W/"2"`}, {`If-Match: "2"`, "If-None-Match: *"}} {
			p := want[problem.Problem](t, d.call("PUT", "/v1/triggers/greet", keys.Admin, greetOnVisit, headers...), 422)
			if p.Errors[0].Header != "If-Match" {
				t.Errorf("%v: %+v", headers, p)
			}
		}

		off := want[TriggerState](t, d.call("POST", "/v1/triggers/greet/disable?note=too+loud", keys.Admin, nil, `If-Match: "2"`), 200)
		if off.State != "disabled" || !off.SwitchedOff || off.Revision != 3 || off.Note != "too loud" || !off.Definition.Disabled {
			t.Errorf("disabled: %+v", off)
		}
		on := want[TriggerState](t, d.call("POST", "/v1/triggers/greet/enable", keys.Admin, nil), 200)
		if on.State != "pending" || on.SwitchedOff || on.Revision != 4 || on.Definition.Disabled {
			t.Errorf("enabled: %+v", on)
		}
		if a := d.call("DELETE", "/v1/triggers/greet", keys.Admin, nil, `If-Match: "3"`); a.status != http.StatusPreconditionFailed {
			t.Errorf("deleting an old revision: %d %s", a.status, a.body)
		}
		if a := d.call("DELETE", "/v1/triggers/greet", keys.Admin, nil, `If-Match: "4"`); a.status != http.StatusNoContent || len(a.body) != 0 {
			t.Errorf("deleting: %d %s", a.status, a.body)
		}
		for _, call := range [][2]string{
			{"GET", "/v1/triggers/greet"}, {"DELETE", "/v1/triggers/greet"}, {"POST", "/v1/triggers/greet/disable"}, {"POST", "/v1/triggers/greet/enable"},
		} {
			if p := want[problem.Problem](t, d.call(call[0], call[1], keys.Admin, nil), 404); p.Type != "urn:bellhop:problem:unknown-trigger" {
				t.Errorf("%v: %+v", call, p)
			}
		}
	})
}

func TestTriggerScopes(t *testing.T) {
	t.Parallel()
	d := setup(t)
	for _, c := range []struct {
		method, path string
		read         bool
	}{
		{"GET", "/v1/triggers", true},
		{"GET", "/v1/triggers/a", true},
		{"PUT", "/v1/triggers/a", false},
		{"DELETE", "/v1/triggers/a", false},
		{"POST", "/v1/triggers/a/disable", false},
		{"POST", "/v1/triggers/a/enable", false},
		{"POST", "/v1/triggers/try", false},
	} {
		for _, scope := range []keys.Scope{"", keys.Publish, keys.Enqueue, keys.Read} {
			a := d.call(c.method, c.path, scope, nil)
			refused := a.status == http.StatusUnauthorized || a.status == http.StatusForbidden
			if refused == (c.read && scope == keys.Read) {
				t.Errorf("%s %s with scope %q: %d", c.method, c.path, scope, a.status)
			}
		}
	}
}

func TestFaultyTriggersAreRefused(t *testing.T) {
	t.Parallel()
	d := setup(t)
	for _, c := range []struct {
		body   string
		status int
		want   []string
	}{
		{`{"on":"com.acme.visit`, 400, []string{"#"}},
		{`[]`, 422, []string{"#"}},
		{`{"on":"a","run":"test:greet","whenn":"true"}`, 422, []string{`#/whenn unknown key "whenn", did you mean "when"?`}},
		{`{"name":"b","on":"a","run":"test:greet"}`, 422, []string{`#/name it must be "a"`}},
		{
			`{"on":"**.a","when":"event.tpye == 1","run":"test:great","timeout":"-1s"}`, 422,
			[]string{"#/on ", "#/timeout ", "#/when no attribute event.tpye: did you mean event.type?", `#/run no task "test:great", did you mean "test:greet"?`},
		},
		{
			`{"on":"a","run":"test:greet","with":{"times":["${","${1 +}"],"nam":"x"}}`, 422,
			[]string{"#/with/times/0 the ${ at character 1 is never closed", "#/with/times/1 ", "#/with/nam ", "#/with/times is a list", `#/with field "name" is missing`},
		},
		{strings.Repeat("[", 50_000), 400, []string{"#"}},
		{`{"on":"a","run":"test:greet","with":` + strings.Repeat("[", 5_000) + strings.Repeat("]", 5_000) + `}`, 422, []string{"# not JSON: nested deeper"}},
	} {
		p := want[problem.Problem](t, d.call("PUT", "/v1/triggers/a", keys.Admin, c.body), c.status)
		if len(p.Errors) != len(c.want) {
			t.Errorf("%.100s: %+v", c.body, p)
			continue
		}
		for _, fault := range c.want {
			if !slices.ContainsFunc(p.Errors, func(f problem.Fault) bool { return strings.HasPrefix(f.Pointer+" "+f.Detail, fault) }) {
				t.Errorf("%.100s: no fault %q in %+v", c.body, fault, p.Errors)
			}
		}
	}
	if a := d.call("PUT", "/v1/triggers/a", keys.Admin, strings.Repeat("[", 100_000)); a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a long one: %d %s", a.status, a.body)
	}
	if a := d.call("PUT", "/v1/triggers/UPPER", keys.Admin, `{"on":"a","run":"test:greet"}`); a.status != 422 {
		t.Errorf("a bad name: %d %s", a.status, a.body)
	}
	if all := want[TriggerOverview](t, d.call("GET", "/v1/triggers", keys.Read, nil), 200); len(all.Triggers) != 0 {
		t.Errorf("%+v", all)
	}
}

func TestTriggersWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	d := setupOver(t, server.Client())
	want[TriggerState](t, d.call("PUT", "/v1/triggers/greet", keys.Admin, greetOnVisit), 201)
	want[TriggerState](t, d.call("GET", "/v1/triggers/greet", keys.Read, nil), 200) // the key is known from now on
	server.Kill()
	for _, c := range [][2]string{{"GET", "/v1/triggers"}, {"GET", "/v1/triggers/greet"}, {"PUT", "/v1/triggers/greet"}, {"POST", "/v1/triggers/greet/disable"}, {"DELETE", "/v1/triggers/greet"}} {
		var body any
		if c[0] == "PUT" {
			body = greetOnVisit
		}
		a := d.call(c[0], c[1], keys.Admin, body)
		if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
			t.Errorf("%v: %d %s", c, a.status, a.body)
		}
	}
	server.Restart() // it has kept nothing, not even the keys
	eventually(t, "Redis answers again", func() bool {
		return d.call("GET", "/v1/triggers/greet", keys.Read, nil).status != http.StatusServiceUnavailable
	})
}

// follow runs a worker's triggers until the test ends.
func (d *door) follow(code ...triggers.Trigger) *triggers.Rules {
	d.t.Helper()
	tasks := d.gateway.deps.Catalog
	store, err := triggers.NewStore(d.rdb, tasks, triggers.Config{})
	if err != nil {
		d.t.Fatal(err)
	}
	rules, err := triggers.NewRules(d.t.Context(), triggers.Sources{Code: code, Store: store}, tasks, triggers.Config{}, slog.New(slog.DiscardHandler))
	if err != nil {
		d.t.Fatal(err)
	}
	feed, err := triggers.NewLiveFeed(rules, d.gateway.deps.Events, job.NewClient(d.rdb), slog.New(slog.DiscardHandler))
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(d.t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := feed.Run(ctx); err != nil {
			d.t.Error(err)
		}
	})
	d.t.Cleanup(func() {
		stop()
		running.Wait()
	})
	return rules
}

// The whole way: a trigger made over HTTP fires on the next event, in a worker that has another one in its code.
func TestATriggerMadeHereFires(t *testing.T) {
	t.Parallel()
	d := setup(t)
	greeted := make(chan string, 10)
	d.work(func(_ context.Context, p greet) error {
		greeted <- p.Name
		return nil
	})
	d.follow(triggers.Trigger{Name: "coded", On: "com.acme.never", Run: "test:greet"})
	body := strings.Replace(greetOnVisit, `"in":"10m",`, "", 1)
	want[TriggerState](t, d.call("PUT", "/v1/triggers/greet", keys.Admin, body), 201)
	state := func(name string) TriggerState {
		return want[TriggerState](t, d.call("GET", "/v1/triggers/"+name, keys.Read, nil), 200)
	}
	eventually(t, "the worker runs it", func() bool { return state("greet").State == "active" })
	visit := func(n int) events.Published {
		t.Helper()
		e, err := events.New("com.acme.visit", "/door", greet{Name: fmt.Sprint("guest ", n), Times: 1})
		if err != nil {
			t.Fatal(err)
		}
		p, err := d.gateway.deps.Events.PublishOne(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	past := visit(1)
	if got := <-greeted; got != "guest 1" {
		t.Errorf("greeted %s", got)
	}
	eventually(t, "the match is counted", func() bool { c := state("greet").Counters; return c.Matches == 1 && c.Jobs == 1 })

	coded := state("coded")
	if coded.Origin != "code" || coded.State != "active" || coded.Workers != 1 || coded.Definition != nil {
		t.Errorf("%+v", coded)
	}
	for _, c := range [][2]string{{"PUT", "/v1/triggers/coded"}, {"DELETE", "/v1/triggers/coded"}} {
		p := want[problem.Problem](t, d.call(c[0], c[1], keys.Admin, `{"on":"a","run":"test:greet"}`), http.StatusConflict)
		if p.Type != "urn:bellhop:problem:read-only-trigger" {
			t.Errorf("%v: %+v", c, p)
		}
	}
	off := want[TriggerState](t, d.call("POST", "/v1/triggers/coded/disable", keys.Admin, nil), 200)
	if off.State != "disabled" || !off.SwitchedOff || off.Origin != "code" || off.By != "admin" {
		t.Errorf("%+v", off)
	}
	if on := want[TriggerState](t, d.call("POST", "/v1/triggers/coded/enable", keys.Admin, nil), 200); on.State != "active" || on.SwitchedOff {
		t.Errorf("%+v", on)
	}
	all := want[TriggerOverview](t, d.call("GET", "/v1/triggers", keys.Read, nil), 200)
	if len(all.Triggers) != 2 || len(all.Workers) != 1 || all.Workers[0].Idle || len(all.Workers[0].Faults) != 0 {
		t.Errorf("%+v", all)
	}

	trial := want[TryAnswer](t, d.call("POST", "/v1/triggers/try", keys.Admin, map[string]any{"name": "greet", "stream_id": past.StreamID}), 200)
	yes := true
	wantTrial := TryAnswer{
		Matched: true, Filter: &yes, Payload: json.RawMessage(`{"name":"guest 1","times":1}`),
		Job: &TryJob{ID: past.StreamID + "-greet", Task: "test:greet", Queue: "greetings", Timeout: "30m"},
	}
	if diff := cmp.Diff(wantTrial, trial); diff != "" {
		t.Error(diff)
	}
	if len(greeted) != 0 {
		t.Error("a trial made a job")
	}
}

func TestTryAnswers(t *testing.T) {
	t.Parallel()
	d := setup(t)
	want[TriggerState](t, d.call("PUT", "/v1/triggers/greet", keys.Admin, greetOnVisit), 201)
	event := func(data string) json.RawMessage {
		return json.RawMessage(`{"specversion":"1.0","id":"1","source":"/door","type":"com.acme.visit","data":` + data + `}`)
	}
	try := func(body any) answer { return d.call("POST", "/v1/triggers/try", keys.Admin, body) }
	for name, c := range map[string]struct {
		body any
		want TryAnswer
	}{
		"false":  {map[string]any{"name": "greet", "event": event(`{"times":0}`)}, TryAnswer{Filter: new(bool), Reason: "when: gave false"}},
		"absent": {map[string]any{"name": "greet", "event": event(`{}`)}, TryAnswer{Reason: "when: no such key: times: test it with has(), or give a default: a.?b.orValue(x)"}},
		"schema": {
			map[string]any{"trigger": json.RawMessage(`{"on":"**","run":"test:greet"}`), "event": event(`{"nam":"x"}`)},
			TryAnswer{Matched: true, Payload: json.RawMessage(`{"nam":"x"}`), Error: `payload of test:greet: no field "nam" (it has name, times); field "name" is missing`},
		},
	} {
		if diff := cmp.Diff(c.want, want[TryAnswer](t, try(c.body), 200)); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
	for name, c := range map[string]struct {
		body    any
		status  int
		pointer string
	}{
		"nothing":         {`{}`, 422, "#/trigger"},
		"no JSON":         {`{`, 400, "#"},
		"both":            {map[string]any{"name": "greet", "trigger": map[string]any{}, "event": event("1")}, 422, "#/trigger"},
		"no event":        {`{"name":"greet"}`, 422, "#/event"},
		"unknown field":   {`{"naem":"greet"}`, 422, "#/naem"},
		"faulty trigger":  {map[string]any{"trigger": map[string]any{"on": "a", "run": "test:greet", "with": map[string]any{"name": "${"}}, "event": event("1")}, 422, "#/trigger/with/name"},
		"mistyped":        {map[string]any{"trigger": map[string]any{"on": "a", "rnu": "x"}, "event": event("1")}, 422, "#/trigger/rnu"},
		"no CloudEvent":   {`{"name":"greet","event":{"type":"x"}}`, 422, "#/event"},
		"unknown trigger": {map[string]any{"name": "none", "event": event("1")}, 404, "#/name"},
		"gone event":      {`{"name":"greet","stream_id":"1-1"}`, 404, "#/stream_id"},
		"no stream id":    {`{"name":"greet","stream_id":"x"}`, 422, "#/stream_id"},
	} {
		p := want[problem.Problem](t, try(c.body), c.status)
		if len(p.Errors) == 0 || p.Errors[0].Pointer != c.pointer {
			t.Errorf("%s: %+v", name, p)
		}
	}
	costly := map[string]any{
		"trigger": map[string]any{"on": "**", "run": "test:greet", "when": "event.data.all(a, event.data.all(b, event.data.all(c, true)))"},
		"event":   event("[" + strings.Repeat("1,", 99) + "1]"),
	}
	if got := want[TryAnswer](t, try(costly), 200); !strings.Contains(got.Error, "cost_limit") {
		t.Errorf("%+v", got)
	}
}
