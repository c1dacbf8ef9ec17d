package handlers_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/handlers"
	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

func TestReplayEvents(t *testing.T) {
	t.Parallel()
	stream, err := events.NewClient(redistest.New(t), events.Config{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := events.New("com.acme.paid", "/shop", map[string]int{"cents": 5})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.PublishOne(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	route := tasks.ReplayEvents.HandledBy(handlers.NewEvents(stream, slog.New(slog.DiscardHandler)).Replay)
	run := func(id, payload string) (*job.Job, error) {
		j := &job.Job{ID: id, Payload: []byte(payload), Attempt: 1}
		return j, route.Handle(job.NewContext(context.WithoutCancel(t.Context()), j), j)
	}
	// The job's second attempt, after its first one's end was lost.
	for range 2 {
		j, err := run("j1", `{"type":"com.acme.*","trigger":"mail"}`)
		if err != nil {
			t.Fatal(err)
		}
		var got tasks.EventsReplayed
		if err := json.Unmarshal(j.Result(), &got); err != nil || got.Published != 1 || !got.Done || got.ID != "j1" {
			t.Errorf("result is %s (%v)", j.Result(), err)
		}
	}
	stats, err := stream.Stats(t.Context())
	if err != nil || stats.Length != 2 {
		t.Errorf("%d events on the stream, want the one and its copy (%v)", stats.Length, err)
	}
	if _, err := run("j2", `{"type":"**.a"}`); err == nil || !strings.Contains(err.Error(), "type: event type pattern") {
		t.Errorf("a bad pattern: %v", err)
	}
	if _, err := run("j3", `{"from":"yesterday"}`); err == nil {
		t.Error("a bad time was taken")
	}
	for payload, want := range map[string]string{`{"stream_id":"1-0"}`: "not found", `{"id":"j1","type":"b"}`: "choose another one"} {
		_, err := run("j4", payload)
		wantDiscard(t, err, want)
	}
}

func TestReplayEventsSchema(t *testing.T) {
	t.Parallel()
	d := tasks.ReplayEvents.Definition()
	if len(d.Schema.Required()) != 0 || len(d.Schema.Fields()) != 10 {
		t.Errorf("fields %v, required %v", d.Schema.Fields(), d.Schema.Required())
	}
	for payload, fault := range map[string]string{
		`{}`: "", `{"from":"2026-01-02T03:04:05Z","until":"2026-01-02T04:04:05Z","rate":50}`: "",
		`{"form":"2026-01-02T03:04:05Z"}`: `no field "form"`, `{"rate":"fast"}`: "rate",
	} {
		if _, err := d.Request([]byte(payload)); (err == nil) != (fault == "") || err != nil && !strings.Contains(err.Error(), fault) {
			t.Errorf("%s: %v", payload, err)
		}
	}
}
