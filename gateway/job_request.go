package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/bellhop-dev/bellhop/internal/problem"
	"github.com/bellhop-dev/bellhop/internal/suggest"
	"github.com/bellhop-dev/bellhop/job"
)

// JobRequest asks for a job. What it leaves out is the task's default.
type JobRequest struct {
	Task      string            `json:"task" minLength:"1" maxLength:"255" example:"http:request" doc:"Name of the task to run; GET /v1/tasks lists them."`
	Payload   json.RawMessage   `json:"payload,omitempty" doc:"What the task takes, by its schema: GET /v1/tasks/{name}. Default: an empty object."`
	Queue     string            `json:"queue,omitempty" maxLength:"255" example:"default" doc:"Queue to run in."`
	ID        string            `json:"id,omitempty" maxLength:"255" doc:"The job's id. While a job with it is kept in the queue, another one is a duplicate. Default: a random UUID."`
	In        string            `json:"in,omitempty" example:"10m" doc:"Start after this duration, such as 90s or 10m, never earlier. Not together with at."`
	At        time.Time         `json:"at,omitzero" doc:"Start at this time (RFC 3339), never earlier; a past time is now. Not together with in."`
	Timeout   string            `json:"timeout,omitempty" example:"30s" doc:"How long one attempt may take, at least 1ms."`
	Deadline  time.Time         `json:"deadline,omitzero" doc:"End every attempt at this time (RFC 3339)."`
	MaxRetry  *int              `json:"max_retry,omitempty" minimum:"0" maximum:"2147483647" example:"5" doc:"How often a failed job is tried again after its first attempt."`
	Retention string            `json:"retention,omitempty" example:"24h" doc:"How long the job is kept, with its result, after it succeeded; 0s: not at all. Default: an hour, or what the task says if that is more."`
	Unique    string            `json:"unique,omitempty" example:"1h" doc:"Refuse an equal job (task, queue, payload) as a duplicate while this one lives, for this duration at most."`
	Group     string            `json:"group,omitempty" maxLength:"255" doc:"Let the job wait in this group of its queue until a worker aggregates the group into one job."`
	Headers   map[string]string `json:"headers,omitempty" doc:"Metadata beside the payload, for the handler. Names that begin with bellhop- are bellhop's own."`
}

// jobDecoder reads JobRequests, and tells every fault with its place.
type jobDecoder struct {
	registry huma.Registry
	schema   *huma.Schema
}

func newJobDecoder(g *Gateway) jobDecoder {
	registry := g.api.OpenAPI().Components.Schemas
	return jobDecoder{registry: registry, schema: g.schemaOf(JobRequest{})}
}

// decode returns the request, or what is wrong with it. Places are below at, a path such as "jobs[3]"; "" is the body itself.
func (d jobDecoder) decode(data []byte, at string) (JobRequest, []problem.Fault) {
	var value any
	if err := unmarshal(data, &value); err != nil {
		return JobRequest{}, []problem.Fault{{Pointer: pointer(at), Detail: err.Error()}}
	}
	result := new(huma.ValidateResult)
	path := huma.NewPathBuffer([]byte{}, 0)
	if at != "" {
		path.Push(at)
	}
	huma.Validate(d.registry, d.schema, path, huma.ModeWriteToServer, value, result)
	var faults []problem.Fault
	for _, err := range result.Errors {
		faults = append(faults, d.explain(err))
	}
	if len(faults) > 0 {
		return JobRequest{}, faults
	}
	var r JobRequest
	if err := json.Unmarshal(data, &r); err != nil {
		return JobRequest{}, []problem.Fault{{Pointer: pointer(at), Detail: err.Error()}}
	}
	if r.Payload == nil {
		r.Payload = json.RawMessage("{}")
	}
	return r, nil
}

// unmarshal is json.Unmarshal for what strangers send: it refuses what would be changed in silence.
func unmarshal(data []byte, v any) error {
	if !utf8.Valid(data) {
		return errNotUTF8
	}
	err := json.Unmarshal(data, v)
	var unfit *json.UnmarshalTypeError
	switch {
	case errors.As(err, &unfit): // its text quotes the value, however long it is
		kind, _, _ := strings.Cut(unfit.Value, " ")
		return fmt.Errorf("it has a %s at byte %d that is too large or does not fit", kind, unfit.Offset)
	case err != nil:
		return fmt.Errorf("it is not JSON: %w", err)
	}
	return nil
}

// explain names the field that an unknown one was meant to be.
func (d jobDecoder) explain(err error) problem.Fault {
	detail, ok := err.(*huma.ErrorDetail) //nolint:errorlint // huma makes no others
	if !ok {
		return problem.Fault{Pointer: "#", Detail: err.Error()}
	}
	fault := problem.Fault{Pointer: pointer(detail.Location), Detail: detail.Message}
	if detail.Message == "unexpected property" {
		fault.Detail = "there is no such field" + suggest.DidYouMean(lastOf(fault.Pointer), d.fields())
	}
	return fault
}

func (d jobDecoder) fields() []string {
	var names []string
	for name := range d.registry.SchemaFromRef(d.schema.Ref).Properties {
		names = append(names, name)
	}
	return names
}

// options are the job's beyond its task's, each with its fault if it is out of range.
func (r JobRequest) options(at string) ([]job.Option, []problem.Fault) {
	o := optionReader{at: at}
	if r.Queue != "" {
		o.add("queue", job.Queue(r.Queue))
	}
	if r.ID != "" {
		o.add("id", job.ID(r.ID))
	}
	if r.Group != "" {
		o.add("group", job.Group(r.Group))
	}
	o.duration("in", r.In, job.In)
	if !r.At.IsZero() {
		o.add("at", job.At(r.At))
	}
	if r.In != "" && !r.At.IsZero() {
		o.fault("at", "in and at exclude each other: leave one of them out")
	}
	o.duration("timeout", r.Timeout, job.Timeout)
	if !r.Deadline.IsZero() {
		o.add("deadline", job.Deadline(r.Deadline))
	}
	if r.MaxRetry != nil {
		o.add("max_retry", job.MaxRetry(*r.MaxRetry))
	}
	o.duration("retention", r.Retention, job.Retention)
	o.duration("unique", r.Unique, job.Unique)
	for name, value := range r.Headers {
		o.add("headers", job.Header(name, value))
	}
	return o.options, o.faults
}

// optionReader collects options and faults of one request.
type optionReader struct {
	at      string
	options []job.Option
	faults  []problem.Fault
}

func (o *optionReader) fault(field, detail string) {
	o.faults = append(o.faults, problem.Fault{Pointer: pointer(o.at + "." + field), Detail: detail})
}

// add takes the option, or says what job refuses about it: once, and without what it says around it.
func (o *optionReader) add(field string, option job.Option) {
	if _, err := job.Named("any").Request([]byte("null"), option); err != nil {
		detail, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), "enqueue any: "), "\n")
		o.fault(field, detail)
		return
	}
	o.options = append(o.options, option)
}

func (o *optionReader) duration(field, text string, option func(time.Duration) job.Option) {
	if text == "" {
		return
	}
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		o.fault(field, "it is no duration: write it such as 500ms, 90s or 24h")
	case d < 0:
		o.fault(field, "it must not be negative")
	default:
		o.add(field, option(d))
	}
}
