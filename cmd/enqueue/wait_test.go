package main

import (
	"strings"
	"testing"

	"github.com/bellhop-dev/bellhop/fleet"
	"github.com/bellhop-dev/bellhop/job"
)

func TestStandingIsEnglish(t *testing.T) {
	t.Parallel()
	for want, j := range map[string]fleet.Job{
		"is pending": {State: "pending"},
		"is active after 1 failure, the last: no":            {State: "active", Retried: 1, LastError: "no"},
		"is pending, put off: full":                          {State: "pending", LastError: "full"},
		"waits for its retry":                                {State: "retry"},
		"is put off: full":                                   {State: "retry", LastError: "full"},
		"waits for its retry after 2 failures, the last: no": {State: "retry", Retried: 2, LastError: "no"},
	} {
		if got := standing(j); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestPrintJobTellsADuplicate(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	e := &enqueuer{stdout: &out}
	if err := e.printJob(&job.Info{ID: "j1", Task: "log:write", Queue: "default", State: stateDuplicate}); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "job j1: log:write in queue default is a duplicate, it was enqueued before\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
