package gateway

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/bellhop-dev/bellhop/internal/problem"
	"github.com/bellhop-dev/bellhop/internal/suggest"
	"github.com/bellhop-dev/bellhop/job"
)

// BatchRequest asks for many jobs.
type BatchRequest struct {
	Jobs []JobRequest `json:"jobs" minItems:"1" nullable:"false" doc:"The jobs, up to max_batch of them."`
}

// BatchAnswer tells what became of each.
type BatchAnswer struct {
	Stored     int           `json:"stored" example:"1" doc:"How many jobs were stored."`
	Duplicates int           `json:"duplicates" example:"0" doc:"How many met an earlier job."`
	Failed     int           `json:"failed" example:"0" doc:"How many were not stored."`
	Results    []BatchResult `json:"results" nullable:"false" doc:"What became of each job, in the order of the request."`
}

// BatchResult is what became of one job.
type BatchResult struct {
	Status  int              `json:"status" example:"201" doc:"What POST /v1/jobs would have answered: 201, 200 for a duplicate, 4xx, or 503: send it again."`
	Job     *StoredJob       `json:"job,omitempty"`
	Problem *problem.Problem `json:"problem,omitempty"`
}

// unfinished tells that some jobs could be stored yet: such an answer is not the last one to its Idempotency-Key.
func (a BatchAnswer) unfinished() bool {
	return slices.ContainsFunc(a.Results, func(r BatchResult) bool { return r.Status >= http.StatusInternalServerError })
}

type batchOutput struct {
	Status   int
	Replayed string `header:"Idempotent-Replayed" doc:"true: the answer is the one that the first request with this Idempotency-Key got."`
	Body     BatchAnswer
}

func (e *enqueuing) batch(ctx context.Context, in *enqueueInput) (*batchOutput, error) {
	answer, replayed, err := once(ctx, e.g, "enqueue-jobs", in.IdempotencyKey, e.storeBatch)
	if err != nil {
		return nil, err
	}
	out := &batchOutput{Status: http.StatusOK, Body: answer}
	if answer.Failed > 0 {
		out.Status = http.StatusMultiStatus
	}
	if replayed {
		out.Replayed = "true"
	}
	return out, nil
}

// storeBatch stores what can be stored and answers for each. It fails if the body is no batch, or if Redis took nothing.
func (e *enqueuing) storeBatch(ctx context.Context, seed string) (BatchAnswer, error) {
	ctx, cancel := e.g.bounded(ctx)
	defer cancel()
	items, err := splitBatch(bodyOf(ctx), "jobs", e.g.cfg.MaxBatch)
	if err != nil {
		return BatchAnswer{}, err
	}
	orders := make([]order, len(items))
	var requests []job.Request
	find := remember(e.g.task)
	for i, item := range items {
		itemSeed := ""
		if seed != "" {
			itemSeed = seed + "-" + strconv.Itoa(i)
		}
		orders[i] = e.read(ctx, item, fmt.Sprintf("jobs[%d]", i), itemSeed, find)
		if orders[i].fault == nil {
			requests = append(requests, orders[i].request)
		}
	}
	results := e.g.deps.Jobs.EnqueueMany(ctx, requests)
	return e.answerBatch(ctx, orders, results)
}

func (e *enqueuing) answerBatch(ctx context.Context, orders []order, results []job.Result) (BatchAnswer, error) {
	answer := BatchAnswer{Results: make([]BatchResult, len(orders))}
	var down *problem.Problem
	away := 0
	for i, o := range orders {
		err := o.fault
		var stored StoredJob
		if err == nil {
			stored, err = e.outcome(ctx, o, results[0])
			results = results[1:]
		}
		var p *problem.Problem
		switch {
		case err != nil && errors.As(err, &p):
			answer.Failed++
			answer.Results[i] = BatchResult{Status: p.Status, Problem: p}
			if p.Status == http.StatusServiceUnavailable {
				away, down = away+1, p
			}
		case err != nil:
			return BatchAnswer{}, err
		case stored.Duplicate:
			answer.Duplicates++
			answer.Results[i] = BatchResult{Status: http.StatusOK, Job: &stored}
		default:
			answer.Stored++
			answer.Results[i] = BatchResult{Status: http.StatusCreated, Job: &stored}
		}
	}
	if away > 0 && answer.Stored+answer.Duplicates == 0 {
		return BatchAnswer{}, down
	}
	return answer, nil
}

// remember asks for each task once: many jobs of a batch have the same.
func remember(find findTask) findTask {
	type answer struct {
		task *job.Definition
		err  error
	}
	known := make(map[string]answer)
	return func(ctx context.Context, name string) (*job.Definition, error) {
		a, ok := known[name]
		if !ok {
			a.task, a.err = find(ctx, name)
			known[name] = a
		}
		return a.task, a.err
	}
}

// splitBatch takes a body apart that is an object with one list. What its items are is looked at one by one, so that a bad one does
// not decide for its neighbours.
func splitBatch(data []byte, field string, most int) ([]json.RawMessage, error) {
	refuse := func(status int, at, format string, args ...any) error {
		return refusal(status, []problem.Fault{{Pointer: pointer(at), Detail: fmt.Sprintf(format, args...)}})
	}
	object := make(map[string]json.RawMessage)
	if err := unmarshal(data, &struct{}{}); err != nil {
		return nil, refuse(http.StatusBadRequest, "", "%v; send an object with a list %q", err, field)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	_, _ = d.Token() // it is an object, or null, which has no names either
	for d.More() {
		token, err := d.Token()
		name, _ := token.(string)
		if err != nil || name != field {
			return nil, refuse(http.StatusUnprocessableEntity, name, "there is no such field%s", suggest.DidYouMean(name, []string{field}))
		}
		if object[name] != nil {
			return nil, refuse(http.StatusUnprocessableEntity, name, "it is there twice: send one list")
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, refuse(http.StatusBadRequest, "", "%v", err)
		}
		object[name] = value
	}
	items, more, err := splitList(object[field], most)
	if err != nil || len(items) == 0 {
		return nil, refuse(http.StatusUnprocessableEntity, field, "it must be a list of at least one")
	}
	if more {
		return nil, refuse(http.StatusUnprocessableEntity, field, "it has more than %d entries, the most that are taken at once: send several batches", most)
	}
	return items, nil
}

// splitList takes a JSON list apart, up to so many items: each costs memory, and a body may have millions of them.
func splitList(data []byte, most int) (items []json.RawMessage, more bool, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	if begin, err := d.Token(); err != nil || begin != json.Delim('[') {
		return nil, false, cmp.Or(err, errNoList)
	}
	for d.More() {
		if len(items) == most {
			return items, true, nil
		}
		var item json.RawMessage
		if err := d.Decode(&item); err != nil {
			return nil, false, err
		}
		items = append(items, item)
	}
	return items, false, nil
}

var errNoList = errors.New("it is no list")
