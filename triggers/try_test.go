package triggers

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
)

func TestTryTellsWhatATriggerWouldDo(t *testing.T) {
	t.Parallel()
	s := newStore(t, redistest.Embedded(t), Config{})
	yes, no, retries := true, false, 0
	e := mail(t)
	for name, c := range map[string]struct {
		trigger Trigger
		want    Trial
	}{
		"match": {
			Trigger{
				On: "com.acme.*.received", When: "event.data.n == 3", Run: "http:request", In: 90 * time.Second, MaxRetry: &retries, Timeout: time.Minute,
				With: map[string]any{"method": "POST", "url": "http://x/${event.data.id}", "json": "${event.data.deep}"},
			},
			Trial{
				Matched: true, Filter: &yes, Payload: json.RawMessage(`{"json":{"a":{"b":"c"}},"method":"POST","url":"http://x/9007199254740993"}`),
				Job: &TrialJob{ID: "1700000000000-0-t", Task: "http:request", Queue: "http", In: 90 * time.Second, Timeout: time.Minute},
			},
		},
		"without filter and mapping": {
			Trigger{On: "**", Run: "any:thing", Queue: "q", Unique: time.Hour},
			Trial{
				Matched: true, Payload: json.RawMessage(mailData),
				Job: &TrialJob{ID: "1700000000000-0-t", Task: "any:thing", Queue: "q", MaxRetry: 25, Timeout: 30 * time.Minute, Unique: time.Hour},
			},
		},
		"other type":      {Trigger{On: "com.acme.x", Run: "any:thing"}, Trial{Reason: `on: the event's type "com.acme.email.received" doesn't fit "com.acme.x"`}},
		"filter is false": {Trigger{On: "**", When: "event.data.n > 3", Run: "any:thing"}, Trial{Filter: &no, Reason: "when: gave false"}},
		"absent field": {
			Trigger{On: "**", When: "event.data.nope == 3", Run: "any:thing"},
			Trial{Reason: "when: no such key: nope: test it with has(), or give a default: a.?b.orValue(x)"},
		},
		"filter fails": {
			Trigger{On: "**", When: "1 / (event.data.n - 3) == 1", Run: "any:thing"},
			Trial{Error: "when: division by zero"},
		},
		"mapping fails": {
			Trigger{On: "**", Run: "any:thing", With: map[string]any{"x": []any{"${event.data.nope}"}}},
			Trial{Matched: true, Error: "with.x[0]: no such key: nope: test it with has(), or give a default: a.?b.orValue(x)"},
		},
		"payload doesn't fit": {
			Trigger{On: "**", Run: "http:request", With: "${event.data.deep}"},
			Trial{Matched: true, Payload: json.RawMessage(`{"a":{"b":"c"}}`), Error: `payload of http:request: no field "a"`},
		},
		"disabled": {
			Trigger{On: "**", Run: "any:thing", With: map[string]any{}, Disabled: true},
			Trial{
				Matched: true, Payload: json.RawMessage(`{}`), Reason: "the trigger is disabled: it would match, but doesn't fire",
				Job: &TrialJob{ID: "1700000000000-0-t", Task: "any:thing", Queue: "default", MaxRetry: 25, Timeout: 30 * time.Minute},
			},
		},
	} {
		c.trigger.Name = "t"
		got, err := s.Try(t.Context(), c.trigger, "1700000000000-0", e)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if strings.HasPrefix(got.Error, c.want.Error) && c.want.Error != "" {
			got.Error = c.want.Error
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
		if _, err := json.Marshal(got); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What Try says is what Handle does.
func TestTryAgreesWithTheRunner(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	s := newStore(t, rdb, Config{})
	trigger := Trigger{Name: "t", On: "**", When: "event.data.n == 1", Run: "log:write", With: map[string]any{"m": "${event.id}"}, MaxRetry: new(int)}
	b := setup(t, rdb, events.Config{}, trigger)
	batch := b.stored(numbered(t, 1, `{"n":1}`), numbered(t, 2, `{"n":2}`))
	if jobs := b.jobs("default"); len(jobs) != 0 {
		t.Fatalf("%v", jobs)
	}
	var trials []Trial
	for _, d := range batch {
		past, err := b.events.Get(t.Context(), d.StreamID)
		if err != nil {
			t.Fatal(err)
		}
		trial, err := s.Try(t.Context(), trigger, d.StreamID, past)
		if err != nil {
			t.Fatal(err)
		}
		trials = append(trials, trial)
	}
	if jobs := b.jobs("default"); len(jobs) != 0 || len(b.dead()) != 0 {
		t.Fatalf("a trial left %v", jobs)
	}
	b.handled(batch)
	if !trials[0].Matched || trials[1].Matched {
		t.Fatalf("%+v", trials)
	}
	m := b.job(trials[0].Job.Queue, trials[0].Job.ID)
	if m.Type != trials[0].Job.Task || string(m.Payload) != string(trials[0].Payload) || m.Retry != trials[0].Job.MaxRetry || m.Timeout != int64(trials[0].Job.Timeout.Seconds()) {
		t.Errorf("the trial said %+v with %s, the runner made %+v", trials[0].Job, trials[0].Payload, m)
	}
	if n := rdb.LLen(t.Context(), wire.PendingKey("default")).Val(); n != 1 {
		t.Errorf("%d jobs", n)
	}
}

func TestTryRefusesFaultyInput(t *testing.T) {
	t.Parallel()
	s := newStore(t, redistest.Embedded(t), Config{})
	_, err := s.Try(t.Context(), Trigger{Name: "t", On: "a", When: "1 +", Run: "nope"}, "", mail(t))
	wantFaults(t, err, "when:", "run:")
	if _, err := s.Try(t.Context(), logging("t"), "no-id", mail(t)); err == nil {
		t.Error("a stream id without a time was taken")
	}
	if _, err := s.Try(t.Context(), logging("t"), "", &events.Event{}); !errors.Is(err, events.ErrInvalid) {
		t.Errorf("an invalid event gave %v", err)
	}
	given, err := s.Try(t.Context(), logging("t"), "", mail(t))
	if err != nil || !given.Matched || given.Job == nil || given.Job.ID != "" {
		t.Errorf("an event that isn't on the stream gave %+v, %v", given, err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Try(gone, Trigger{Name: "t", On: "**", When: "event.data.n == 1", Run: "any:thing"}, "", mail(t)); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller who is gone got %v", err)
	}
	if _, err := compileAll(t, Config{}, logging("a")).Try(t.Context(), "b", "", mail(t)); !errors.Is(err, ErrNotFound) {
		t.Errorf("a name that isn't there gave %v", err)
	}
}

// All limits hold for a trial: it ends soon, and says why.
func TestTryIsBounded(t *testing.T) {
	t.Parallel()
	s := newStore(t, redistest.Embedded(t), Config{})
	e := event(t, "a.b", `{"s": "`+strings.Repeat("a", 300_000)+`", "l": [`+strings.Repeat("1,", 999)+`1], "t": "`+strings.Repeat("x", 500_000)+`"}`)
	all := hostile()
	for _, name := range []string{"nested loops", "list tree", "text doubling", "regex"} {
		when := all[name]
		if when == "" {
			t.Fatalf("there is no expression %q", name)
		}
		begin := time.Now()
		trial, err := s.Try(t.Context(), Trigger{Name: "t", On: "**", When: when, Run: "any:thing"}, "", e)
		if took := time.Since(begin); took > 30*time.Second {
			t.Errorf("%s: took %v", name, took)
		}
		if err == nil && trial.Error == "" {
			t.Errorf("%s: gave %+v", name, trial)
		}
	}
	trial, err := s.Try(t.Context(), Trigger{
		Name: "t", On: "**", Run: "any:thing", With: []any{strings.Repeat("${event.data.t}", 20)},
	}, "", e)
	if err != nil || !strings.Contains(trial.Error, "max_payload_bytes") || len(trial.Payload) != 0 || trial.Job != nil {
		t.Errorf("a large payload gave %.200q, %v", trial.Error, err)
	}
}
