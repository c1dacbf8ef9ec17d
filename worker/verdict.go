package worker

import (
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/bellhop-dev/bellhop/job"
)

// verdict is what an attempt's error means. It is read off the error once: an error's methods and a task's Retry are the user's code,
// which may panic where no handler runs, as the Error method of a typed nil does.
type verdict struct {
	outcome outcome
	text    string        // of the error
	wait    time.Duration // before the next attempt, where there is one
	final   bool          // it died since its retries are used up
	stack   []byte        // of a panic
}

// verdict judges an attempt. A panic on the way makes it a failure that waits as the worker's own back-off says.
func (w *Worker) verdict(j *job.Job, err error) (v verdict) {
	if err == nil {
		return verdict{}
	}
	defer func() {
		if value := recover(); value != nil {
			v = w.panicked(j, v.text, value)
		}
	}()
	v.text = err.Error()
	v.outcome = outcomeOf(err)
	if panicked, ok := errors.AsType[*job.PanicError](err); ok {
		v.stack = panicked.Stack
	}
	switch v.outcome {
	case snoozed, putOff, retried:
		v.wait = w.backoff(j.Task, j.Attempt, err)
	}
	return v.counted(j)
}

func (w *Worker) panicked(j *job.Job, failure string, value any) verdict {
	text := fmt.Sprintf("panic in a method of the handler's error, or in the task's Retry: %v", value)
	if failure != "" {
		text = failure + "; " + text
	}
	return verdict{outcome: retried, text: text, wait: w.ownBackoff(j.Attempt), stack: debug.Stack()}.counted(j)
}

// counted lets a job die whose retries are used up.
func (v verdict) counted(j *job.Job) verdict {
	if v.outcome == retried && j.LastAttempt() {
		v.outcome, v.final = died, true
	}
	return v
}

// asked tells whether the handler decided by itself how the job ends: it is done, or not to be simply tried again.
func (v verdict) asked() bool { return v.outcome != retried && !v.final }

func (w *Worker) logVerdict(j *job.Job, v verdict) {
	if v.outcome == done {
		return // before anything is formatted: it was a sixth of what a job cost
	}
	log := w.log.With("job", j.ID, "task", j.Task, "queue", j.Queue, "attempt", j.Attempt)
	switch {
	case v.stack != nil:
		log.Error("the handler panicked", "err", v.text, "stack", string(v.stack))
	case v.outcome == revoked:
		log.Info("job revoked", "err", v.text)
	case v.outcome == snoozed:
		log.Debug("job snoozed", "err", v.text)
	case v.outcome == putOff:
		log.Warn("the job is put off for 30s, which spends no retry: this worker has no handler for its task", "err", v.text)
	case v.outcome == died && !v.final:
		log.Warn("job discarded", "err", v.text)
	default:
		log.Warn("attempt failed", "err", v.text, "max_retry", j.MaxRetry)
	}
}
