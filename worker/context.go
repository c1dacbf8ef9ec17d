package worker

import (
	"context"
	"sync"
	"time"
)

// attemptContext is a handler's context. A context that can be cancelled and has a deadline costs two contexts, a timer and a channel, a
// sixth of what a short job takes of the worker, and most handlers of such jobs never look: it is made when somebody does.
type attemptContext struct {
	base context.Context //nolint:containedctx // carries the values; it does not end

	mu     sync.Mutex
	end    time.Time // no end: zero
	cause  error     // why it has ended, while it is not made
	made   context.Context
	cancel context.CancelCauseFunc
	free   context.CancelFunc
}

// begin sets the time that the attempt may take.
func (c *attemptContext) begin(end time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end = end
}

// stop ends the context, unless it has ended: with a cause, or nil for context.Canceled.
func (c *attemptContext) stop(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.made != nil:
		c.cancel(cause)
	case c.cause == nil && !c.late():
		c.cause = orCanceled(cause)
	}
}

// finish frees what was made. The context has ended then.
func (c *attemptContext) finish() {
	c.stop(nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.free != nil {
		c.free()
	}
}

// why is the cause of the end, nil if there was none.
func (c *attemptContext) why() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.made != nil:
		return context.Cause(c.made)
	case c.cause == nil && c.late():
		c.cause = ErrTimeout
	}
	return c.cause
}

func (c *attemptContext) late() bool { return !c.end.IsZero() && !time.Now().Before(c.end) }

func orCanceled(cause error) error {
	if cause == nil {
		return context.Canceled
	}
	return cause
}

func (c *attemptContext) real() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.made == nil {
		ctx, cancel := context.WithCancelCause(c.base)
		if c.cause != nil && c.cause != ErrTimeout { //nolint:errorlint // it is no wrapped error: set here alone
			cancel(c.cause)
		}
		c.made, c.cancel, c.free = ctx, cancel, func() { cancel(nil) }
		if !c.end.IsZero() {
			c.made, c.free = context.WithDeadlineCause(ctx, c.end, ErrTimeout)
		}
	}
	return c.made
}

// Deadline implements context.Context.
func (c *attemptContext) Deadline() (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.end, !c.end.IsZero()
}

// Done implements context.Context.
func (c *attemptContext) Done() <-chan struct{} { return c.real().Done() }

// Err implements context.Context.
func (c *attemptContext) Err() error { return c.real().Err() }

// Value implements context.Context. The context package asks this way for what it has made itself.
func (c *attemptContext) Value(key any) any {
	if v := c.base.Value(key); v != nil {
		return v
	}
	return c.real().Value(key)
}
