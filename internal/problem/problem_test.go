package problem_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bellhop-dev/bellhop/internal/problem"
)

func TestWrite(t *testing.T) {
	t.Parallel()
	p := problem.New(http.StatusUnprocessableEntity, "unknown-task", "Unknown task", `no task "a<b"`, problem.Fault{Pointer: "#/task", Detail: "unknown"})
	p.RetryAfter = 1200 * time.Millisecond
	w := httptest.NewRecorder()
	problem.Write(w, p)
	got := []any{w.Code, w.Header().Get("Content-Type"), w.Header().Get("Retry-After"), w.Header().Get("Cache-Control"), w.Body.String()}
	want := []any{
		422, "application/problem+json", "2", "no-store",
		`{"type":"urn:bellhop:problem:unknown-task","title":"Unknown task","status":422,"detail":"no task \"a<b\"",` +
			`"errors":[{"pointer":"#/task","detail":"unknown"}]}` + "\n",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOf(t *testing.T) {
	t.Parallel()
	b, err := json.Marshal(problem.Of(http.StatusNotFound, ""))
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"type":"about:blank","title":"Not Found","status":404}`; string(b) != want {
		t.Errorf("got %s, want %s", b, want)
	}
}
