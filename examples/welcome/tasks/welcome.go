// Package tasks declares what can be run. Services that enqueue import this and nothing else of ours.
package tasks

import (
	"time"

	"github.com/bellhop-dev/bellhop/job"
)

// WelcomeEmail is what a job needs to know: an id, not the whole user.
type WelcomeEmail struct {
	UserID string `json:"user_id" jsonschema:"whom to greet"`
}

// SendWelcome greets a new user.
var SendWelcome = job.Define[WelcomeEmail]("email:welcome",
	job.Queue("mail"), job.MaxRetry(8), job.Timeout(30*time.Second))
