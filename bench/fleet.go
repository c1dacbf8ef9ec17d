package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// fleet is some worker processes that went off together.
type fleet struct {
	children []*child

	mu      sync.Mutex
	reports [][]message // of each child, in the order in which they came
	err     error
	news    chan struct{}

	answers []chan message // to wordCPU
}

// startFleet starts the processes, and lets them go once all are ready.
func startFleet(ctx context.Context, processes int, o order) (*fleet, error) {
	f := &fleet{news: make(chan struct{}, 1), reports: make([][]message, processes)}
	for range processes {
		c, err := startChild(ctx, o)
		if err != nil {
			f.kill()
			return nil, err
		}
		f.children = append(f.children, c)
		f.answers = append(f.answers, make(chan message, 1))
	}
	for i, c := range f.children {
		if err := c.say(wordGo); err != nil {
			f.kill()
			return nil, err
		}
		go f.listen(i, c)
	}
	return f, nil
}

func (f *fleet) listen(i int, c *child) {
	for m := range c.lines {
		switch m.Kind {
		case kindCPU:
			f.answers[i] <- m
			continue
		case kindProgress:
			f.note(func() { f.reports[i] = append(f.reports[i], m) })
		case kindError:
			f.note(func() { f.err = errors.New(m.Error) })
		}
	}
	f.note(func() {
		if f.err == nil {
			f.err = errors.New("a worker process has ended early")
		}
	})
}

func (f *fleet) note(change func()) {
	f.mu.Lock()
	change()
	f.mu.Unlock()
	select {
	case f.news <- struct{}{}:
	default:
	}
}

// until returns once ok, which is asked after each report.
func (f *fleet) until(ctx context.Context, ok func() bool) error {
	for {
		if ok() {
			return nil
		}
		f.mu.Lock()
		err := f.err
		f.mu.Unlock()
		if err != nil {
			return err
		}
		select {
		case <-f.news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// latest are the last reports of those who have run a job.
func (f *fleet) latest() []message {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []message
	for _, reports := range f.reports {
		if len(reports) > 0 {
			all = append(all, reports[len(reports)-1])
		}
	}
	return all
}

// handled is how many jobs have run.
func (f *fleet) handled() (n int64) {
	for _, m := range f.latest() {
		n += m.Handled
	}
	return n
}

// at is when the last report came of a fleet of one process.
func (f *fleet) at() (at time.Time) {
	for _, m := range f.latest() {
		at = time.Unix(0, m.At)
	}
	return at
}

// span is from the start of the first job to the end of the last one.
func (f *fleet) span() (first, last time.Time) {
	for _, m := range f.latest() {
		if t := time.Unix(0, m.First); first.IsZero() || t.Before(first) {
			first = t
		}
		if t := time.Unix(0, m.Last); t.After(last) {
			last = t
		}
	}
	return first, last
}

// before is the last report of a fleet of one process that is not later than end.
func (f *fleet) before(end time.Time) (handled int64, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.reports[0] {
		if t := time.Unix(0, m.At); !t.After(end) {
			handled, at = m.Handled, t
		}
	}
	return handled, at
}

// cpu is the time that all processes have used.
func (f *fleet) cpu(ctx context.Context) (total time.Duration, err error) {
	for i, c := range f.children {
		if err := c.say(wordCPU); err != nil {
			return 0, err
		}
		select {
		case m := <-f.answers[i]:
			total += m.CPU
		case <-ctx.Done():
			return 0, fmt.Errorf("ask a worker for its CPU time: %w", context.Cause(ctx))
		}
	}
	return total, nil
}

func (f *fleet) kill() {
	for _, c := range f.children {
		c.kill()
	}
}
