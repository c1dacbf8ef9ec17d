package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/internal/suggest"
	"github.com/bellhop-dev/bellhop/job"
)

// lineReader makes a job or an event of each line.
type lineReader struct {
	e     *enqueuer
	task  *job.Definition // set: each line is its payload
	tasks map[string]job.Definition
	opts  []job.Option
}

func (e *enqueuer) newLineReader(ctx context.Context, task string) (*lineReader, error) {
	r := &lineReader{e: e, tasks: make(map[string]job.Definition)}
	var err error
	if r.opts, err = e.jobOptions(); err != nil {
		return nil, err
	}
	if task != "" {
		d, err := e.definition(ctx, task)
		if err != nil {
			return nil, err
		}
		r.task = &d
		return r, nil
	}
	known, err := e.knownTasks(ctx)
	if err != nil {
		return nil, err
	}
	for _, t := range known {
		r.tasks[t.Name] = t.Definition
	}
	return r, nil
}

// record is a line that says itself what it is: a job ("task") or an event ("event", or a whole CloudEvent).
type record struct {
	Task      string            `json:"task"`
	Payload   json.RawMessage   `json:"payload"`
	Queue     string            `json:"queue"`
	In        string            `json:"in"`
	At        string            `json:"at"`
	MaxRetry  *int              `json:"max_retry"`
	Timeout   string            `json:"timeout"`
	Unique    string            `json:"unique"`
	Retention string            `json:"retention"`
	Headers   map[string]string `json:"headers"`

	Event   string          `json:"event"`
	Data    json.RawMessage `json:"data"`
	Source  string          `json:"source"`
	Subject string          `json:"subject"`

	ID string `json:"id"`
}

var recordFields = []string{
	"task", "payload", "queue", "in", "at", "max_retry", "timeout", "unique", "retention", "headers", "event", "data", "source", "subject", "id",
}

// read returns a request or an event, never both.
func (r *lineReader) read(text []byte) (*job.Request, *events.Event, error) {
	text = bytes.TrimSpace(text)
	switch {
	case len(text) > maxLineBytes:
		return nil, nil, errLongLine
	case !utf8.Valid(text):
		return nil, nil, errNotUTF8
	}
	switch {
	case r.task != nil:
		return request(*r.task, text, r.opts)
	case r.e.event != "":
		event, err := r.e.newEvent(text)
		return nil, event, err
	case isCloudEvent(text):
		event, err := events.Decode(text)
		return nil, event, err
	}
	rec, err := decodeRecord(text)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case rec.Task != "" && rec.Event != "":
		return nil, nil, errors.New(`both "task" and "event" are given, a line is one of them`)
	case rec.Task != "":
		return r.jobOf(rec)
	case rec.Event != "":
		return r.eventOf(rec)
	}
	return nil, nil, errors.New(`it names neither a "task" nor an "event"`)
}

func isCloudEvent(text []byte) bool {
	var probe struct {
		SpecVersion string `json:"specversion"`
	}
	return bytes.Contains(text, []byte(`"specversion"`)) && json.Unmarshal(text, &probe) == nil && probe.SpecVersion != ""
}

func decodeRecord(text []byte) (record, error) {
	var rec record
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&rec); err != nil {
		var names map[string]json.RawMessage
		if json.Unmarshal(text, &names) == nil {
			for name := range names {
				if !isRecordField(name) {
					return rec, fmt.Errorf("unknown field %q%s", name, suggest.DidYouMean(name, recordFields))
				}
			}
		}
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return rec, wrongType(wrong)
		}
		return rec, fmt.Errorf("not a job or event: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return rec, errors.New("more follows after the first JSON value")
	}
	return rec, nil
}

// wrongType says it in the words of JSON.
func wrongType(err *json.UnmarshalTypeError) error {
	if err.Field == "" {
		return fmt.Errorf(`not a job or event: the line is a JSON %s, want an object with "task" or "event"`, err.Value)
	}
	want := "a string"
	switch err.Type.Kind() {
	case reflect.Int:
		want = "a whole number"
	case reflect.Map:
		want = "an object of strings"
	}
	return fmt.Errorf("%q is a JSON %s, want %s", err.Field, err.Value, want)
}

func isRecordField(name string) bool {
	return slices.Contains(recordFields, name)
}

func request(d job.Definition, payload []byte, opts []job.Option) (*job.Request, *events.Event, error) {
	req, err := d.Request(payload, opts...)
	return &req, nil, err
}

func (r *lineReader) jobOf(rec record) (*job.Request, *events.Event, error) {
	d, ok := r.tasks[rec.Task]
	if !ok && !r.e.force {
		names := make([]string, 0, len(r.tasks))
		for name := range r.tasks {
			names = append(names, name)
		}
		return nil, nil, fmt.Errorf("no worker has registered the task %q%s", rec.Task, suggest.DidYouMean(rec.Task, names))
	}
	if !ok {
		d = job.Named(rec.Task)
	}
	opts, err := rec.options()
	if err != nil {
		return nil, nil, err
	}
	payload := rec.Payload
	if payload == nil {
		payload = []byte("{}")
	}
	return request(d, payload, append(append([]job.Option(nil), r.opts...), opts...)) // the line's own options win
}

func (rec record) options() ([]job.Option, error) {
	var opts []job.Option
	if rec.Queue != "" {
		opts = append(opts, job.Queue(rec.Queue))
	}
	if rec.ID != "" {
		opts = append(opts, job.ID(rec.ID))
	}
	if rec.MaxRetry != nil {
		opts = append(opts, job.MaxRetry(*rec.MaxRetry))
	}
	for k, v := range rec.Headers {
		opts = append(opts, job.Header(k, v))
	}
	for _, f := range []struct {
		name, text string
		option     func(time.Duration) job.Option
	}{{"in", rec.In, job.In}, {"timeout", rec.Timeout, job.Timeout}, {"unique", rec.Unique, job.Unique}, {"retention", rec.Retention, job.Retention}} {
		if f.text == "" {
			continue
		}
		d, err := time.ParseDuration(f.text)
		if err != nil {
			return nil, fmt.Errorf("%q is %q, not a duration such as 10m", f.name, f.text)
		}
		if d < 0 {
			return nil, fmt.Errorf("%q is %q, it must not be negative", f.name, f.text)
		}
		opts = append(opts, f.option(d))
	}
	if rec.At != "" {
		at, err := time.Parse(time.RFC3339Nano, rec.At)
		if err != nil {
			return nil, fmt.Errorf(`"at" is %q, not a time in RFC 3339`, rec.At)
		}
		opts = append(opts, job.At(at))
	}
	return opts, nil
}

func (r *lineReader) eventOf(rec record) (*job.Request, *events.Event, error) {
	if strings.ContainsFunc(rec.Event, unicode.IsSpace) {
		return nil, nil, fmt.Errorf("%q: %w", rec.Event, errSpace)
	}
	var opts []events.Option
	if rec.ID != "" {
		opts = append(opts, events.ID(rec.ID))
	}
	if rec.Subject != "" {
		opts = append(opts, events.Subject(rec.Subject))
	}
	source := rec.Source
	if source == "" {
		source = r.e.eventSource()
	}
	data := rec.Data
	if data == nil {
		data = []byte("{}")
	}
	event, err := events.New(rec.Event, source, data, opts...)
	return nil, event, err
}
