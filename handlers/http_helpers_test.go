package handlers_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/bellhop-dev/bellhop/handlers"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

// allowLoopback lets a test's handler call the test's servers.
var allowLoopback = handlers.HTTPConfig{Allow: []string{"127.0.0.1", "::1"}}

func newHTTP(t *testing.T, cfg handlers.HTTPConfig) *handlers.HTTP {
	t.Helper()
	h, err := handlers.NewHTTP(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func serve(t *testing.T, handle http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(s.Close)
	return s
}

// answer writes what a client may no longer be there to read.
func answer(w io.Writer, text string) { _, _ = io.WriteString(w, text) }

// run runs one attempt, as a worker does: through the route, with the payload as JSON.
func run(t *testing.T, h *handlers.HTTP, p tasks.HTTPRequest) (*job.Job, error) {
	t.Helper()
	return runJob(t, h, &job.Job{ID: "job-1"}, p)
}

func runJob(t *testing.T, h *handlers.HTTP, j *job.Job, p tasks.HTTPRequest) (*job.Job, error) {
	t.Helper()
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := tasks.RequestHTTP.Definition().Schema.Check(data); err != nil && strings.HasPrefix(p.URL, "http") { // a Go producer's other URL comes this far
		t.Fatalf("payload %s: %v", data, err)
	}
	j.Payload = data
	return j, tasks.RequestHTTP.HandledBy(h.Request).Handle(job.NewContext(t.Context(), j), j)
}

func resultOf(t *testing.T, j *job.Job) tasks.HTTPResponse {
	t.Helper()
	var r tasks.HTTPResponse
	if err := json.Unmarshal(j.Result(), &r); err != nil {
		t.Fatalf("result %q: %v", j.Result(), err)
	}
	return r
}

func wantDiscard(t *testing.T, err error, parts ...string) {
	t.Helper()
	if !job.IsDiscard(err) {
		t.Fatalf("got %v, want a discard", err)
	}
	wantText(t, err, parts...)
}

func wantRetry(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil || job.IsDiscard(err) || job.IsSnooze(err) {
		t.Fatalf("got %v, want a failure to be tried again", err)
	}
	wantText(t, err, parts...)
}

func wantText(t *testing.T, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not tell %q", err, part)
		}
	}
}
