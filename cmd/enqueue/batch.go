package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/internal/cli"
	"github.com/bellhop-dev/bellhop/job"
)

// storeBatch stores what the lines hold and sets aside what can't be taken. It fails only where going on would fail for every line.
func (e *enqueuer) storeBatch(ctx context.Context, reader *lineReader, batch []line, rejects *rejects) error {
	var jobs, published pile
	var requests []job.Request
	var toPublish []*events.Event
	for _, l := range batch {
		request, event, err := reader.read(l.text)
		switch {
		case err != nil:
			if err := rejects.add(l, err); err != nil {
				return err
			}
		case event != nil:
			published, toPublish = append(published, l), append(toPublish, event)
		default:
			jobs, requests = append(jobs, l), append(requests, *request)
		}
	}
	jobErrs := e.patiently(ctx, len(requests), func(ctx context.Context, open []int) []error {
		return e.enqueueSome(ctx, requests, open)
	})
	eventErrs := e.patiently(ctx, len(toPublish), func(ctx context.Context, open []int) []error {
		return e.publishSome(ctx, toPublish, open)
	})
	return errors.Join(e.settle(jobs, jobErrs, rejects), e.settle(published, eventErrs, rejects))
}

type pile []line

// errDuplicate marks a line whose job or event is there already.
var errDuplicate = errors.New("duplicate")

func (e *enqueuer) settle(lines pile, errs []error, rejects *rejects) error {
	for i, l := range lines {
		switch err := errs[i]; {
		case err == nil:
			e.total.Stored++
		case errors.Is(err, errDuplicate):
			e.total.Duplicates++
		default:
			if err := rejects.add(l, err); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *enqueuer) enqueueSome(ctx context.Context, requests []job.Request, open []int) []error {
	some := make([]job.Request, len(open))
	for n, i := range open {
		some[n] = requests[i]
	}
	errs := make([]error, len(open))
	for n, result := range e.jobs.EnqueueMany(ctx, some) {
		if errors.Is(result.Err, job.ErrDuplicate) {
			result.Err = errDuplicate
		}
		if result.Err == nil {
			e.stored[result.Info.Queue] = true
		}
		errs[n] = result.Err
	}
	return errs
}

func (e *enqueuer) publishSome(ctx context.Context, all []*events.Event, open []int) []error {
	some := make([]*events.Event, len(open))
	for n, i := range open {
		some[n] = all[i]
	}
	errs := make([]error, len(open))
	outcomes, _ := e.events.Publish(ctx, some...) // each outcome has its own error
	for n, p := range outcomes {
		errs[n] = p.Err
		if p.Err == nil && p.Duplicate {
			errs[n] = errDuplicate
		}
	}
	return errs
}

// Patience with a Redis that is away or full, before the lines are given back.
const (
	tries     = 8
	firstWait = 100 * time.Millisecond
)

// patiently repeats what failed and may yet succeed. Requests and events keep their ids: what was stored although its answer was
// lost comes back as a duplicate of itself, and counts as stored.
func (e *enqueuer) patiently(ctx context.Context, n int, do func(context.Context, []int) []error) []error {
	errs := make([]error, n)
	open := make([]int, n)
	for i := range open {
		open[i] = i
	}
	wait := firstWait
	for try := 1; len(open) > 0; try++ {
		var again []int
		for k, err := range do(ctx, open) {
			i := open[k]
			if try > 1 && errors.Is(err, errDuplicate) {
				err = nil
			}
			errs[i] = err
			if err != nil && !errors.Is(err, errDuplicate) && !permanent(err) {
				again = append(again, i)
			}
		}
		open = again
		if len(open) == 0 || try == tries || ctx.Err() != nil {
			break
		}
		if try == 1 {
			fmt.Fprintf(e.stderr, "%d lines could not be stored yet, trying on: %v\n", len(open), errs[open[0]])
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
		wait *= 2
	}
	return errs
}

// permanent tells that no patience helps: the line itself is at fault.
func permanent(err error) bool {
	var usage cli.UsageError
	return errors.Is(err, events.ErrInvalid) || errors.Is(err, events.ErrTooLarge) || errors.As(err, &usage)
}
