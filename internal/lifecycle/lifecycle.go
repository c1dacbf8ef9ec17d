// Package lifecycle starts and stops the long-lived parts of a process: each blocks in Run(ctx), one group holds them.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// Group runs parts side by side. When one of them returns, with an error or without, all are asked to stop.
type Group struct {
	parts []part
	last  []part
}

type part struct {
	name string
	run  func(context.Context) error
}

// Add puts a part into the group. Run must return soon after its context ends; an error that only says so is no failure.
func (g *Group) Add(name string, run func(context.Context) error) {
	g.parts = append(g.parts, part{name, run})
}

// AddLast puts a part into the group that is asked to stop only once the parts of Add have returned: what tells others how the
// group stops.
func (g *Group) AddLast(name string, run func(context.Context) error) {
	g.last = append(g.last, part{name, run})
}

// Run starts every part and returns once all have returned, with the failures of all.
func (g *Group) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	outlasting, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()

	failures := make([]error, len(g.parts)+len(g.last))
	start := func(ctx context.Context, wait *sync.WaitGroup, failure *error, p part) {
		wait.Go(func() {
			defer cancel()
			if err := p.run(ctx); err != nil && (ctx.Err() == nil || !errors.Is(err, ctx.Err())) {
				*failure = fmt.Errorf("%s: %w", p.name, err)
			}
		})
	}
	var first, last sync.WaitGroup
	for i, p := range g.parts {
		start(ctx, &first, &failures[i], p)
	}
	for i, p := range g.last {
		start(outlasting, &last, &failures[len(g.parts)+i], p)
	}
	first.Wait()
	end()
	last.Wait()
	return errors.Join(failures...)
}

// ForceExitCode is what a process ends with that was told twice to stop: 128 + SIGINT, as shells say it.
const ForceExitCode = 130

// sameWish is how soon after the first signal another one is the same wish: timeout(1) signals its child and then its whole group,
// and so do supervisors.
const sameWish = 500 * time.Millisecond

// WithSignals returns a context that ends on the first SIGINT or SIGTERM. The second one, if it comes more than half a second later,
// ends the process at once, after calling forced, which says so.
func WithSignals(ctx context.Context, forced func()) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		select {
		case <-signals:
			cancel()
		case <-done:
			return
		}
		first := time.Now()
		for {
			select {
			case <-signals:
			case <-done:
				return
			}
			if time.Since(first) > sameWish {
				forced()
				os.Exit(ForceExitCode) //nolint:forbidigo // that is what the second signal asks for
			}
		}
	}()
	var once sync.Once
	return ctx, func() {
		once.Do(func() {
			signal.Stop(signals)
			close(done)
		})
		cancel()
	}
}
