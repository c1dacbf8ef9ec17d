package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"

	"github.com/bellhop-dev/bellhop/job"
)

// stock is the engine that is asynq.Server as it is. It polls, and its times are whole seconds; we set its polling as short
// as its cost allows.
type stock struct {
	w       *Worker
	server  *asynq.Server
	running atomic.Int64
}

const (
	stockTaskCheck    = 200 * time.Millisecond // between looks into empty queues
	stockDelayedCheck = 500 * time.Millisecond // between looks for scheduled jobs and retries that are due
)

func newStock(w *Worker) *stock {
	s := &stock{w: w}
	s.server = asynq.NewServerFromRedisClient(w.rdb, asynq.Config{
		Concurrency:              w.cfg.Concurrency,
		Queues:                   w.cfg.weights(),
		StrictPriority:           w.cfg.StrictPriority,
		ShutdownTimeout:          w.cfg.Grace,
		TaskCheckInterval:        stockTaskCheck,
		DelayedTaskCheckInterval: stockDelayedCheck,
		RetryDelayFunc:           s.retryDelay,
		IsFailure:                stockSpends,
		ErrorHandler:             asynq.ErrorHandlerFunc(s.failed),
		Logger:                   stockLogger{w.log.With("engine", EngineAsynq)},
		LogLevel:                 asynq.WarnLevel,
		GroupAggregator:          w.aggregator,
		GroupGracePeriod:         w.groups.Grace,
		GroupMaxDelay:            w.groups.MaxDelay,
		GroupMaxSize:             w.groups.MaxSize,
	})
	return s
}

// Run takes jobs until ctx ends and returns once they have finished or were handed back.
func (s *stock) Run(ctx context.Context) error {
	if err := s.server.Start(asynq.HandlerFunc(s.run)); err != nil {
		return fmt.Errorf("start asynq's server: %w", err)
	}
	<-ctx.Done()
	s.w.draining.Store(true)
	if n := s.running.Load(); n > 0 {
		s.w.log.Info("draining: running jobs may finish within the grace period", "jobs", n, "grace", s.w.cfg.Grace.String())
	}
	s.server.Shutdown()
	return nil
}

// run is asynq's view of an attempt.
func (s *stock) run(ctx context.Context, task *asynq.Task) error {
	s.running.Add(1)
	defer s.running.Add(-1)
	j, limits := stockJob(ctx, task)
	ctx, cancel := s.bound(context.WithValue(ctx, asynqTaskKey{}, task), limits)
	defer cancel()
	err := s.w.process(ctx, j)
	if result := j.Result(); err == nil && result != nil && task.ResultWriter() != nil {
		if _, err := task.ResultWriter().Write(result); err != nil {
			return fmt.Errorf("keep the result: %w", err)
		}
	}
	if err != nil {
		v := s.w.verdict(j, err)
		s.w.logVerdict(j, v)
		return stockError{v}
	}
	return nil
}

// bound sets the exact end of the attempt and lets it end with the worker.
func (s *stock) bound(ctx context.Context, limits job.Limits) (context.Context, context.CancelFunc) {
	ctx, abandon := context.WithCancelCause(ctx)
	unlink := context.AfterFunc(s.w.abandoned, func() { abandon(ErrAbandoned) })
	cancel := func() {}
	if end := endOf(limits, time.Now()); !end.IsZero() {
		ctx, cancel = context.WithDeadlineCause(ctx, end, ErrTimeout)
	}
	return ctx, func() { cancel(); unlink(); abandon(nil) }
}

func stockJob(ctx context.Context, task *asynq.Task) (*job.Job, job.Limits) {
	headers, event, limits := job.Open(task.Headers())
	j := &job.Job{Task: task.Type(), Payload: task.Payload(), Headers: headers, Event: event}
	j.ID, _ = asynq.GetTaskID(ctx)
	j.Queue, _ = asynq.GetQueueName(ctx)
	j.MaxRetry, _ = asynq.GetMaxRetry(ctx)
	retried, _ := asynq.GetRetryCount(ctx)
	j.Attempt = retried + 1
	return j, limits
}

// stockError brings a verdict through asynq, which asks it what asynq's own errors would answer.
type stockError struct{ verdict }

func (e stockError) Error() string { return e.text }

func (e stockError) Is(target error) bool {
	switch e.outcome {
	case died:
		return target == asynq.SkipRetry
	case revoked:
		return target == asynq.RevokeTask
	}
	return false
}

// stockSpends is called by asynq to tell whether an error costs the job one of its attempts.
func stockSpends(err error) bool {
	var e stockError
	return !errors.As(err, &e) || e.outcome != snoozed && e.outcome != putOff
}

// retryDelay is called by asynq with the retries taken so far. asynq cuts the time that it adds to down to the second:
// we lengthen the wait to the next full one, so that no attempt comes early.
func (s *stock) retryDelay(retried int, err error, task *asynq.Task) time.Duration {
	var e stockError
	if !errors.As(err, &e) { // asynq's own: its deadline or its lease has ended
		e.verdict = s.w.verdict(&job.Job{Task: task.Type(), Attempt: retried + 1}, err)
	}
	at := time.Now().Add(e.wait)
	if whole := at.Truncate(time.Second); whole.Before(at) {
		at = whole.Add(time.Second)
	}
	return time.Until(at) + time.Millisecond
}

// failed is called by asynq before it retries or archives.
func (s *stock) failed(ctx context.Context, _ *asynq.Task, err error) {
	retried, _ := asynq.GetRetryCount(ctx)
	most, _ := asynq.GetMaxRetry(ctx)
	if !errors.Is(err, asynq.RevokeTask) && (retried >= most || errors.Is(err, asynq.SkipRetry)) {
		s.w.dead.Add(1)
	}
}

// stockLogger brings asynq's log lines into slog.
type stockLogger struct{ log *slog.Logger }

func (l stockLogger) Debug(args ...any) { l.log.Debug(fmt.Sprint(args...)) } //nolint:sloglint // asynq's words
func (l stockLogger) Info(args ...any)  { l.log.Info(fmt.Sprint(args...)) }  //nolint:sloglint // asynq's words
func (l stockLogger) Warn(args ...any)  { l.log.Warn(fmt.Sprint(args...)) }  //nolint:sloglint // asynq's words
func (l stockLogger) Error(args ...any) { l.log.Error(fmt.Sprint(args...)) } //nolint:sloglint // asynq's words

func (l stockLogger) Fatal(args ...any) {
	l.log.Error(fmt.Sprint(args...)) //nolint:sloglint // asynq's words
	os.Exit(1)                       //nolint:forbidigo // asynq demands it of Fatal
}
