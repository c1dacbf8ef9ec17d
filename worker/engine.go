package worker

import (
	"context"
	"errors"

	"github.com/hibiken/asynq"

	"github.com/bellhop-dev/bellhop/job"
)

// engine takes jobs from Redis, brings them through the worker's process and writes how they ended.
type engine interface {
	// Run takes jobs until ctx ends. Then it marks the worker as draining, and returns once the running jobs have finished or,
	// after the grace period, were handed back.
	Run(ctx context.Context) error
}

func (w *Worker) newEngine() (engine, error) {
	if w.cfg.Engine == EngineAsynq {
		return newStock(w), nil
	}
	return newPool(w)
}

// outcome is what the answer of a handler means to its job.
type outcome int

const (
	done    outcome = iota // gone, or kept for its retention
	revoked                // gone: asynq.RevokeTask
	snoozed                // later, unspent
	putOff                 // later, unspent: no handler here
	retried                // later, one attempt spent
	died                   // kept among the dead
)

// outcomeOf is what the error itself asks for: a retry may turn out to be one too many.
func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return done
	case errors.Is(err, asynq.RevokeTask):
		return revoked
	case job.IsDiscard(err), errors.Is(err, asynq.SkipRetry):
		return died
	case job.IsSnooze(err):
		return snoozed
	case errors.Is(err, errNoHandler), errors.Is(err, asynq.ErrHandlerNotFound):
		return putOff
	}
	return retried
}
