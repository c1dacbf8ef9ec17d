package queue

import (
	"context"
	"testing"
)

type key struct{}

// A round trip ends by itself, whatever becomes of the caller whose values it has.
func TestARoundTripOutlivesItsCaller(t *testing.T) {
	t.Parallel()
	var s sending
	caller, leave := context.WithCancel(context.WithValue(t.Context(), key{}, "trace"))
	ctx := s.context(caller)
	child, cancel := context.WithCancel(ctx)
	defer cancel()
	leave()
	if ctx.Err() != nil || context.Cause(ctx) != nil || child.Err() != nil || context.Cause(child) != nil {
		t.Errorf("ended with its caller: %v, %v", context.Cause(ctx), context.Cause(child))
	}
	if got := child.Value(key{}); got != "trace" {
		t.Errorf("the caller's value is %v", got)
	}
	if _, bounded := ctx.Deadline(); !bounded {
		t.Error("it has no end")
	}
	if other := s.context(t.Context()); other.Done() != ctx.Done() {
		t.Error("the next one has an end of its own")
	}
}
