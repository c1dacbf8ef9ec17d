package handlers_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/bellhop-dev/bellhop/job"

	"example.com/welcome/handlers"
	"example.com/welcome/tasks"
)

// A handler is a function: its test needs no Redis and no worker.
func TestSendWelcome(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	m := &handlers.Mailer{Out: &out, Gone: func(id string) bool { return id == "41" }}
	if err := m.SendWelcome(t.Context(), tasks.WelcomeEmail{UserID: "42"}); err != nil || out.String() != "to user 42: Welcome!\n" {
		t.Errorf("error %v, wrote %q", err, out.String())
	}
	if err := m.SendWelcome(t.Context(), tasks.WelcomeEmail{UserID: "41"}); !job.IsDiscard(err) {
		t.Errorf("a user who is gone: %v, want a discard", err)
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestSendWelcomeTriesAgain(t *testing.T) {
	t.Parallel()
	m := &handlers.Mailer{Out: brokenPipe{}, Gone: func(string) bool { return false }}
	var retry *job.RetryError
	if err := m.SendWelcome(t.Context(), tasks.WelcomeEmail{UserID: "42"}); !errors.As(err, &retry) {
		t.Errorf("got %v, want a retry", err)
	}
}
