// Package problem writes what went wrong with a request as RFC 9457 problem details, the one form in which bellhop's HTTP
// services answer anything but a success.
package problem

import (
	"encoding/json"
	"maps"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// ContentType is the media type of a Problem.
const ContentType = "application/problem+json"

// typePrefix names our kinds of problems. A URN says that there is nothing to fetch; a program compares it.
const typePrefix = "urn:bellhop:problem:"

// Problem tells a client what went wrong and what to do. Never put into it what a client sent as a secret.
//
//nolint:errname // RFC 9457's word
type Problem struct {
	// Type is a URN of bellhop's that a program can branch on, "about:blank" if the status says it all.
	Type string `json:"type" format:"uri" example:"urn:bellhop:problem:unknown-task" doc:"What kind of problem it is, for programs."`
	// Title is the same for all problems of the type.
	Title string `json:"title" example:"Unknown task" doc:"What kind of problem it is, in words."`
	// Status repeats the HTTP status.
	Status int `json:"status" example:"422" doc:"The HTTP status."`
	// Detail names the fault and what to do.
	Detail string `json:"detail,omitempty" example:"no task \"emial:send\" is known, did you mean \"email:send\"? GET /v1/tasks lists them" doc:"What is wrong with this request, and what to do."`
	// Errors names each fault where there are several, or where one has a place.
	Errors []Fault `json:"errors,omitempty" nullable:"false" doc:"Each fault with its place in the request."`

	// RetryAfter tells the client when to come again, in whole seconds, rounded up; zero says nothing.
	RetryAfter time.Duration `json:"-"`
}

// Fault is one thing wrong, with its place: a JSON pointer into the body, or the name of a parameter or header.
//
//nolint:errname // a part of a Problem
type Fault struct {
	Pointer   string `json:"pointer,omitempty" example:"#/payload/url" doc:"JSON pointer into the request's body, as a URI fragment."`
	Parameter string `json:"parameter,omitempty" doc:"Name of a parameter of the path or query."`
	Header    string `json:"header,omitempty" doc:"Name of a header of the request."`
	Detail    string `json:"detail" example:"field \"url\" is missing" doc:"What is wrong there, and what to do."`
}

// Error names the place and the fault.
func (f Fault) Error() string {
	place := f.Parameter + f.Header + strings.TrimPrefix(strings.TrimPrefix(f.Pointer, "#"), "/")
	if place == "" {
		return f.Detail
	}
	return place + ": " + f.Detail
}

// New returns a problem of a kind of ours: a short name in kebab-case, such as "unknown-task".
func New(status int, kind, title, detail string, faults ...Fault) *Problem {
	return &Problem{Type: typePrefix + kind, Title: title, Status: status, Detail: detail, Errors: faults}
}

// Of returns a problem that its status describes.
func Of(status int, detail string, faults ...Fault) *Problem {
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail, Errors: faults}
}

// Unavailable returns a 503 that asks the client to come again: nothing is wrong with the request.
func Unavailable(detail string, after time.Duration) *Problem {
	p := New(http.StatusServiceUnavailable, "unavailable", "Unavailable for now", detail)
	p.RetryAfter = after
	return p
}

// Error makes a Problem an error, for handlers to return.
func (p *Problem) Error() string {
	if p.Detail == "" {
		return p.Title
	}
	return p.Detail
}

// GetStatus, GetHeaders and ContentType are what huma asks of an error.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders returns the headers that go with it.
func (p *Problem) GetHeaders() http.Header {
	h := http.Header{"Cache-Control": {"no-store"}}
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(p.RetryAfter.Seconds()))))
	}
	return h
}

// ContentType is the problem's, whatever was negotiated.
func (p *Problem) ContentType(string) string { return ContentType }

// Write answers with the problem.
func Write(w http.ResponseWriter, p *Problem) {
	maps.Copy(w.Header(), p.GetHeaders())
	w.Header().Set("Content-Type", ContentType)
	w.WriteHeader(p.Status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(p) // the client is gone
}
