package lifecycle_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bellhop-dev/bellhop/internal/lifecycle"
)

func waits(stopped chan<- struct{}) func(context.Context) error {
	return func(ctx context.Context) error {
		<-ctx.Done()
		stopped <- struct{}{}
		return ctx.Err()
	}
}

func TestOneEndStopsAll(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]error{"without a failure": nil, "with one": errors.New("broken")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stopped := make(chan struct{}, 2)
			group := new(lifecycle.Group)
			group.Add("a", waits(stopped))
			group.Add("b", waits(stopped))
			group.Add("c", func(context.Context) error { return end })
			err := group.Run(t.Context())
			if len(stopped) != 2 {
				t.Errorf("Run returned while %d of 2 parts had stopped", len(stopped))
			}
			if !errors.Is(err, end) || end != nil && !strings.HasPrefix(err.Error(), "c: ") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A last part goes on while the others stop, and ends the group like any other when it fails.
func TestLastPartsStopLast(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	stopping, stop := make(chan struct{}), make(chan struct{})
	group := new(lifecycle.Group)
	group.Add("worker", func(ctx context.Context) error {
		<-ctx.Done()
		close(stopping)
		<-stop
		return nil
	})
	lastEnded := make(chan struct{})
	group.AddLast("probes", func(ctx context.Context) error {
		<-ctx.Done()
		close(lastEnded)
		return ctx.Err()
	})
	result := make(chan error, 1)
	go func() { result <- group.Run(ctx) }()
	cancel()
	<-stopping
	select {
	case <-lastEnded:
		t.Error("the last part was stopped before the first had returned")
	default:
	}
	close(stop)
	<-lastEnded
	if err := <-result; err != nil {
		t.Error(err)
	}

	broken := errors.New("broken")
	group = new(lifecycle.Group)
	group.Add("worker", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	group.AddLast("probes", func(context.Context) error { return broken })
	if err := group.Run(t.Context()); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestEveryFailureIsTold(t *testing.T) {
	t.Parallel()
	first, second := errors.New("first"), errors.New("second")
	group := new(lifecycle.Group)
	group.Add("a", func(context.Context) error { return first })
	group.Add("b", func(ctx context.Context) error { <-ctx.Done(); return second })
	if err := group.Run(t.Context()); !errors.Is(err, first) || !errors.Is(err, second) {
		t.Errorf("got %v", err)
	}
}

//nolint:paralleltest // signals go to the whole process
func TestFirstSignalEndsTheContext(t *testing.T) {
	ctx, stop := lifecycle.WithSignals(t.Context(), func() { t.Error("forced") })
	defer stop()
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the context goes on after SIGTERM")
	}
	// The same wish a second time: this process would end here, or tell that it was forced.
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}
