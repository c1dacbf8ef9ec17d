package worker

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/bellhop-dev/bellhop/job"
)

type valueKey struct{}

func newAttemptContext(timeout time.Duration) *attemptContext {
	c := &attemptContext{base: context.WithValue(context.WithoutCancel(context.Background()), valueKey{}, "v")}
	c.begin(time.Now().Add(timeout))
	return c
}

// What handlers do that wait for nothing makes nothing.
func TestContextIsMadeForWhoWaits(t *testing.T) {
	t.Parallel()
	c := newAttemptContext(time.Minute)
	ctx := job.NewContext(c, &job.Job{ID: "a"})
	if j, ok := job.FromContext(ctx); !ok || j.ID != "a" {
		t.Error("no job in the context")
	}
	if ctx.Value(valueKey{}) != "v" {
		t.Error("the worker's own values are not seen")
	}
	if end, ok := ctx.Deadline(); !ok || time.Until(end) > time.Minute {
		t.Error(end, ok)
	}
	if c.made != nil {
		t.Error("it was made for nobody")
	}
	if ctx.Err() != nil || c.made == nil {
		t.Error("it was not made for one who asked", ctx.Err())
	}
	c.finish()
	if !errors.Is(ctx.Err(), context.Canceled) {
		t.Error("it goes on after the attempt:", ctx.Err())
	}
}

// Whoever looks, before the end or after it, is told the same.
func TestContextTellsItsCause(t *testing.T) {
	t.Parallel()
	for name, look := range map[string]func(context.Context){
		"looked at before": func(ctx context.Context) { ctx.Done() }, "not looked at": func(context.Context) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cancelled := newAttemptContext(time.Minute)
			look(cancelled)
			cancelled.stop(ErrCancelled)
			cancelled.stop(ErrAbandoned) // too late
			expectEnd(t, cancelled, context.Canceled, ErrCancelled)

			late := newAttemptContext(time.Millisecond)
			look(late)
			eventuallyEnds(t, late)
			late.stop(ErrCancelled) // too late
			expectEnd(t, late, context.DeadlineExceeded, ErrTimeout)

			ended := newAttemptContext(time.Minute)
			look(ended)
			ended.finish()
			expectEnd(t, ended, context.Canceled, context.Canceled)
		})
	}
}

func expectEnd(t *testing.T, c *attemptContext, err, cause error) {
	t.Helper()
	if why := c.why(); !errors.Is(why, cause) {
		t.Errorf("the worker is told %v, want %v", why, cause)
	}
	ctx := job.NewContext(c, &job.Job{})
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
	}
	if !errors.Is(ctx.Err(), err) || !errors.Is(context.Cause(ctx), cause) {
		t.Errorf("the handler is told %v, for %v; want %v, for %v", ctx.Err(), context.Cause(ctx), err, cause)
	}
}

func eventuallyEnds(t *testing.T, c *attemptContext) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); c.why() == nil; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("its time is not used up")
		}
	}
}

// The context package knows it as one of its own: a context made from it costs no goroutine, and ends with it, for the same cause.
func TestContextsOfAContextEndWithIt(t *testing.T) {
	t.Parallel()
	c := newAttemptContext(time.Minute)
	child, cancel := context.WithTimeout(job.NewContext(c, &job.Job{}), time.Hour)
	defer cancel()
	called := make(chan struct{})
	context.AfterFunc(child, func() { close(called) })
	c.stop(ErrLostOwnership)
	select {
	case <-called:
	case <-time.After(10 * time.Second):
		t.Fatal("what was made from it goes on")
	}
	if !errors.Is(context.Cause(child), ErrLostOwnership) {
		t.Error(context.Cause(child))
	}
}
