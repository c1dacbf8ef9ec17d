// Package handlers holds what runs: one file a task, business code that knows neither Redis nor asynq.
//
// Step 6 of 7: the worker has taken a job and calls its handler, a plain function of a context and the task's payload. What it
// returns tells how the job ended: nil is done, an error is tried again, job.Discard ends it for good, job.RetryIn and job.Snooze
// name a time. job.FromContext tells which job it is.
//
// The handlers here are the built-in ones, and the pattern to copy.
package handlers
