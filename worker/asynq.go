package worker

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"runtime/debug"

	"github.com/hibiken/asynq"

	"github.com/bellhop-dev/bellhop/job"
)

// Asynq makes a route of a plain asynq handler, unchanged, for the task of this exact name. asynq.SkipRetry and asynq.RevokeTask
// mean what they mean there. A handler that calls asynq.GetTaskID, GetRetryCount, GetMaxRetry or GetQueueName or writes to the task's
// ResultWriter needs the engine asynq: what they read is closed to all but asynq's own server. Under the engine bellhop those four find
// nothing (false), and a ResultWriter fails the attempt; job.FromContext tells the same, and Job.SetResult keeps a result.
func Asynq(task string, h asynq.Handler) job.Route {
	if h == nil {
		return job.Route{Definition: job.Named(task)} // New refuses it
	}
	return job.Route{
		Definition: job.Named(task),
		Handle:     asynqHandler(h),
	}
}

type asynqTaskKey struct{}

// asynqHandler gives the handler the very task that asynq's server gave to us, with its ResultWriter, where there is one.
func asynqHandler(h asynq.Handler) job.Handler {
	return func(ctx context.Context, j *job.Job) (err error) {
		if task, ok := ctx.Value(asynqTaskKey{}).(*asynq.Task); ok {
			return h.ProcessTask(ctx, task)
		}
		defer func() {
			if v := recover(); v != nil {
				err = unwritable(v, debug.Stack())
			}
		}()
		return h.ProcessTask(ctx, asynq.NewTaskWithHeaders(j.Task, j.Payload, j.Headers))
	}
}

var errNoResultWriter = errors.New("the handler uses its task's ResultWriter, which asynq's own server alone can give: " +
	"set Engine: worker.EngineAsynq (worker.engine: asynq), or keep the result with Job.SetResult")

// unwritable says what to do where a handler panicked in the ResultWriter that its task does not have.
func unwritable(value any, stack []byte) error {
	if _, ok := value.(runtime.Error); ok && bytes.Contains(stack, []byte("asynq.(*ResultWriter).")) {
		return errNoResultWriter
	}
	return &job.PanicError{Value: value, Stack: stack}
}
