package docs_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/worker"
)

// docs/operations.md shows what stands in these functions.

func ownProbe(w *worker.Worker) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(rw http.ResponseWriter, _ *http.Request) {
		if err := w.Ready(); err != nil {
			http.Error(rw, err.Error(), http.StatusServiceUnavailable)
		}
	})

	return mux
}

func ownCheck(ctx context.Context, rdb redis.UniversalClient) error {
	policy, err := rdb.ConfigGet(ctx, "maxmemory-policy").Result()
	if err == nil && policy["maxmemory-policy"] != "noeviction" {
		err = fmt.Errorf("redis may drop jobs: its maxmemory-policy is %s", policy["maxmemory-policy"])
	}

	return err
}

func pauseMendResume(rdb redis.UniversalClient, mend func() error) error {
	inspector := asynq.NewInspectorFromRedisClient(rdb)
	if err := inspector.PauseQueue("mail"); err != nil { // what runs goes on, nothing more starts
		return err
	}

	if err := mend(); err != nil {
		return err
	}

	revived, err := inspector.RunAllArchivedTasks("mail") // or RunTask("mail", id)
	if err != nil {
		return err
	}
	fmt.Println(revived, "dead jobs are pending again")
	return inspector.UnpauseQueue("mail")
}

func TestOperationsCode(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	w, err := worker.New(rdb, worker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	answer := httptest.NewRecorder()
	ownProbe(w).ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil))
	if answer.Code != http.StatusServiceUnavailable {
		t.Errorf("a worker that does not run is ready: %d %s", answer.Code, answer.Body)
	}
	if err := ownCheck(t.Context(), rdb); err != nil {
		t.Error(err)
	}

	dead, err := SendWelcome.Enqueue(t.Context(), job.NewClient(rdb), WelcomeEmail{UserID: "42"})
	if err != nil {
		t.Fatal(err)
	}
	if err := asynq.NewInspectorFromRedisClient(rdb).ArchiveTask("mail", dead.ID); err != nil {
		t.Fatal(err)
	}
	backlog := func(paused bool, pending, dead int64) error {
		b, err := fleet.New(rdb).Backlog(t.Context(), "mail")
		if err == nil && (b.Paused != paused || b.Pending != pending || b.Dead != dead) {
			err = fmt.Errorf("%+v, want paused %v, %d pending, %d dead", b, paused, pending, dead)
		}
		return err
	}
	err = pauseMendResume(rdb, func() error { return backlog(true, 0, 1) })
	if err = errors.Join(err, backlog(false, 1, 0)); err != nil {
		t.Error(err)
	}
}
