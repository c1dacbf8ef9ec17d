package worker

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/bellhop-dev/bellhop/job"
)

// ErrTimeout ends the context of an attempt that has used up its time: context.Cause tells it from a stop of the worker.
var ErrTimeout = errors.New("the attempt has used up its time")

// ErrAbandoned ends the context of an attempt whose job was handed back because the worker stops.
var ErrAbandoned = errors.New("the worker stops, the job was handed back")

// errNoHandler puts a job off whose task this build does not know: another build may.
var errNoHandler = errors.New("no handler for the task in this worker")

// noHandlerWait is how long a job of an unknown task is put off.
const noHandlerWait = 30 * time.Second

// process runs one attempt: middlewares, then the task's handler. Whatever happens in there comes back as an error.
func (w *Worker) process(ctx context.Context, j *job.Job, limits job.Limits) error {
	ctx, cancel := w.bound(ctx, limits)
	defer cancel()
	handler := w.handler(j)
	for i := len(w.middlewares) - 1; i >= 0; i-- {
		handler = w.middlewares[i](handler)
	}
	return recovered(handler)(job.NewContext(ctx, j), j)
}

// bound sets the exact end of the attempt and lets it end with the worker.
func (w *Worker) bound(ctx context.Context, limits job.Limits) (context.Context, context.CancelFunc) {
	ctx, abandon := context.WithCancelCause(ctx)
	unlink := context.AfterFunc(w.abandoned, func() { abandon(ErrAbandoned) })
	end := limits.Deadline
	if limits.Timeout > 0 {
		if t := time.Now().Add(limits.Timeout); end.IsZero() || t.Before(end) {
			end = t
		}
	}
	cancel := func() {}
	if !end.IsZero() {
		ctx, cancel = context.WithDeadlineCause(ctx, end, ErrTimeout)
	}
	return ctx, func() { cancel(); unlink(); abandon(nil) }
}

// handler finds the task's handler by its exact name.
func (w *Worker) handler(j *job.Job) job.Handler {
	if r, ok := w.routes[j.Task]; ok {
		return r.Handle
	}
	if w.fallback != nil {
		return asynqHandler(w.fallback)
	}
	return func(context.Context, *job.Job) error {
		return fmt.Errorf("%w: %q, serving %d tasks", errNoHandler, j.Task, len(w.routes))
	}
}

// recovered turns a panic of the handler or a middleware into an error with its stack.
func recovered(next job.Handler) job.Handler {
	return func(ctx context.Context, j *job.Job) (err error) {
		defer func() {
			if v := recover(); v != nil {
				err = &job.PanicError{Value: v, Stack: debug.Stack()}
			}
		}()
		return next(ctx, j)
	}
}

// backoff is the wait before the attempt after the n-th.
func (w *Worker) backoff(task string, n int, err error) time.Duration {
	var retry *job.RetryError
	var snooze *job.SnoozeError
	switch {
	case errors.As(err, &retry):
		return retry.In
	case errors.As(err, &snooze):
		return snooze.For
	case errors.Is(err, errNoHandler):
		return noHandlerWait
	}
	if r, ok := w.routes[task]; ok && r.Backoff != nil {
		return max(r.Backoff(n, err), 0)
	}
	return job.Exponential(w.cfg.Retry.First, w.cfg.Retry.Max)(n, err)
}

// spends tells whether the error costs the job one of its attempts.
func spends(err error) bool { return !job.IsSnooze(err) && !errors.Is(err, errNoHandler) }
