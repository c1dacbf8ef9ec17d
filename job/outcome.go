package job

import (
	"errors"
	"fmt"
	"time"
)

// DiscardError ends a job without another attempt.
type DiscardError struct {
	Reason string
	Err    error // the cause, where DiscardErr was given one
}

func (e *DiscardError) Error() string { return "discarded: " + e.Reason }

// Unwrap returns the cause.
func (e *DiscardError) Unwrap() error { return e.Err }

// Discard, returned by a handler, ends the job for good: it is kept among the dead with the reason, and never tried again.
func Discard(reason string) error { return &DiscardError{Reason: reason} }

// DiscardErr is Discard with a cause for a reason, which errors.Is and errors.As find; nil is no reason, and stays nil.
func DiscardErr(err error) error {
	if err == nil {
		return nil
	}
	return &DiscardError{Reason: err.Error(), Err: err}
}

// RetryError is a failure that names the wait before the next attempt.
type RetryError struct {
	In  time.Duration
	Err error
}

func (e *RetryError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("retry in %v", e.In)
	}
	return e.Err.Error()
}

// Unwrap returns the failure.
func (e *RetryError) Unwrap() error { return e.Err }

// RetryIn, returned by a handler, counts as a failed attempt and sets the wait before the next one.
func RetryIn(d time.Duration, err error) error { return &RetryError{In: max(d, 0), Err: err} }

// SnoozeError puts a job off.
type SnoozeError struct{ For time.Duration }

func (e *SnoozeError) Error() string { return fmt.Sprintf("snoozed for %v", e.For) }

// Snooze, returned by a handler, runs the job again after d. It is no failure and spends no attempt.
func Snooze(d time.Duration) error { return &SnoozeError{For: max(d, 0)} }

// PanicError is what a panic in a handler becomes.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap returns the panic's value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// IsDiscard, IsSnooze tell what a handler asked for.
func IsDiscard(err error) bool { return errors.As(err, new(*DiscardError)) }

// IsSnooze tells whether err puts the job off.
func IsSnooze(err error) bool { return errors.As(err, new(*SnoozeError)) }
