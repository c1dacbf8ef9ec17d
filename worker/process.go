package worker

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/bellhop-dev/bellhop/job"
)

// ErrTimeout ends the context of an attempt that has used up its time: context.Cause tells it from a stop of the worker.
var ErrTimeout = errors.New("the attempt has used up its time")

// ErrAbandoned ends the context of an attempt whose job was handed back because the worker stops.
var ErrAbandoned = errors.New("the worker stops, the job was handed back")

// ErrCancelled ends the context of an attempt whose job somebody cancelled. The job is not tried again.
var ErrCancelled = errors.New("cancelled")

// ErrLostOwnership ends the context of an attempt whose job was given to another worker, because this one had seemed dead.
// Whatever the handler answers then changes nothing.
var ErrLostOwnership = errors.New("the job was given to another worker")

// errNoHandler puts a job off whose task this build does not know: another build may.
var errNoHandler = errors.New("no handler for the task in this worker")

// noHandlerWait is how long a job of an unknown task is put off. The log names it.
const noHandlerWait = 30 * time.Second

// process runs one attempt: middlewares, then the task's handler. Whatever happens in there comes back as an error.
func (w *Worker) process(ctx context.Context, j *job.Job) error {
	chain, ok := w.chains[j.Task]
	if !ok {
		chain = w.unrouted
	}
	return recovered(job.NewContext(ctx, j), j, chain)
}

// chain wraps every handler in the middlewares, once for the worker's life. Tasks are found by their exact name.
func (w *Worker) chain() {
	w.chains = make(map[string]job.Handler, len(w.routes))
	for name, r := range w.routes {
		w.chains[name] = w.wrapped(r.Handle)
	}
	unrouted := w.noHandler
	if w.fallback != nil {
		unrouted = asynqHandler(w.fallback)
	}
	w.unrouted = w.wrapped(unrouted)
}

func (w *Worker) wrapped(handler job.Handler) job.Handler {
	for _, middleware := range slices.Backward(w.middlewares) {
		handler = middleware(handler)
	}
	return handler
}

func (w *Worker) noHandler(_ context.Context, j *job.Job) error {
	return fmt.Errorf("%w: %q, serving %d tasks", errNoHandler, j.Task, len(w.routes))
}

// endOf is when an attempt that starts now has used up its time; zero if it has no limit.
func endOf(limits job.Limits, now time.Time) time.Time {
	end := limits.Deadline
	if limits.Timeout > 0 {
		if t := now.Add(limits.Timeout); end.IsZero() || t.Before(end) {
			end = t
		}
	}
	return end
}

// recovered runs the handler and turns a panic in it or in a middleware into an error with its stack.
func recovered(ctx context.Context, j *job.Job, handler job.Handler) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &job.PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return handler(ctx, j)
}

// backoff is the wait before the attempt after the n-th. It may panic: the task's Retry is the user's code.
func (w *Worker) backoff(task string, n int, err error) time.Duration {
	var retry *job.RetryError
	var snooze *job.SnoozeError
	switch {
	case errors.As(err, &retry):
		return retry.In
	case errors.As(err, &snooze):
		return snooze.For
	case outcomeOf(err) == putOff:
		return noHandlerWait
	}
	if r, ok := w.routes[task]; ok && r.Backoff != nil {
		return max(r.Backoff(n, err), 0)
	}
	return w.ownBackoff(n)
}

func (w *Worker) ownBackoff(n int) time.Duration {
	return job.Exponential(w.cfg.Retry.First, w.cfg.Retry.Max)(n, nil)
}
