// Package handlers holds what runs: plain functions that know neither Redis nor queues.
package handlers

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/bellhop-dev/bellhop/job"

	"example.com/welcome/tasks"
)

// Mailer sends mail. This one writes it to Out, where yours would talk to a server.
type Mailer struct {
	Out  io.Writer
	Gone func(userID string) bool
}

// SendWelcome runs email:welcome.
func (m *Mailer) SendWelcome(ctx context.Context, p tasks.WelcomeEmail) error {
	if m.Gone(p.UserID) {
		return job.Discard("user was deleted") // no retry mends that; the job is kept among the dead
	}
	if err := m.send(ctx, p.UserID, "Welcome!"); err != nil {
		return job.RetryIn(time.Minute, err) // a plain err waits for the task's back-off
	}
	return nil
}

func (m *Mailer) send(_ context.Context, to, text string) error {
	_, err := fmt.Fprintf(m.Out, "to user %s: %s\n", to, text)
	return err
}
