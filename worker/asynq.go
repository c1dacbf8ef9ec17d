package worker

import (
	"context"

	"github.com/hibiken/asynq"

	"github.com/bellhop-dev/bellhop/job"
)

// Asynq makes a route of a plain asynq handler, unchanged, for the task of this exact name. asynq.SkipRetry and asynq.RevokeTask
// mean what they mean there. A handler that calls asynq.GetTaskID and its like or writes to the task's ResultWriter needs the
// engine asynq: what they read is closed to all but asynq's own server. Under the engine bellhop job.FromContext tells the
// same, and Job.SetResult keeps a result.
func Asynq(task string, h asynq.Handler) job.Route {
	return job.Route{
		Definition: job.Definition{Name: task, Defaults: job.Defaults{
			Queue: job.DefaultQueue, MaxRetry: job.DefaultMaxRetry, Timeout: job.DefaultTimeout,
		}},
		Handle: asynqHandler(h),
	}
}

type asynqTaskKey struct{}

// asynqHandler gives the handler the very task that asynq's server gave to us, with its ResultWriter, where there is one.
func asynqHandler(h asynq.Handler) job.Handler {
	return func(ctx context.Context, j *job.Job) error {
		task, ok := ctx.Value(asynqTaskKey{}).(*asynq.Task)
		if !ok {
			task = asynq.NewTaskWithHeaders(j.Task, j.Payload, j.Headers)
		}
		return h.ProcessTask(ctx, task)
	}
}
