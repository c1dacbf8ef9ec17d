package webhook

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/internal/problem"
)

// Outcome is what came of a request, for counting.
type Outcome string

// The outcomes.
const (
	Stored        Outcome = "stored"         // 2xx: the event is durable
	Duplicate     Outcome = "duplicate"      // 2xx: it was before
	Answered      Outcome = "answered"       // 2xx: a challenge or a check of the provider's, no event
	UnknownHook   Outcome = "unknown_hook"   // 404
	BadMethod     Outcome = "bad_method"     // 405
	BadSignature  Outcome = "bad_signature"  // 401: missing, several, of another key, of another body
	Stale         Outcome = "stale"          // 401: the signed time is too far from now
	Malformed     Outcome = "malformed"      // 400: signed, but not what the provider sends
	Incomplete    Outcome = "incomplete"     // 400: the body broke off
	TooLarge      Outcome = "too_large"      // 413
	BadEncoding   Outcome = "bad_encoding"   // 415: a compressed body
	StreamFull    Outcome = "stream_full"    // 503: no room on the stream
	NotReplicated Outcome = "not_replicated" // 503: stored, and not on as many replicas as it should
	Unavailable   Outcome = "unavailable"    // 503: Redis did not answer
	Overloaded    Outcome = "overloaded"     // 503: too many at once
)

// Answer is what an [Observer] is told of a request.
type Answer struct {
	// Hook is the name of the hook as it is configured, "" if the request named none that is: what strangers make up never
	// becomes a label.
	Hook    string
	Kind    string
	Outcome Outcome
	Status  int
	// Took is the time from the request's headers to the answer, the reading of its body included.
	Took time.Duration
	// Bytes of the body that were read.
	Bytes int
}

// Observer counts.
type Observer interface {
	HookAnswered(Answer)
}

// refusal says why a request is no event. The reason is for the operator's log: it never holds what was sent.
type refusal struct {
	outcome Outcome
	reason  string
	cause   error
}

func refuse(o Outcome, reason string) *refusal { return &refusal{outcome: o, reason: reason} }

func (r *refusal) Error() string {
	if r.cause != nil {
		return r.reason + ": " + r.cause.Error()
	}
	return r.reason
}

func (r *refusal) Unwrap() error { return r.cause }

// retryAfter is what a provider that keeps to it waits before it sends again.
const retryAfter = 5 * time.Second

// problemOf is all that the sender learns. It is the same for a missing, a wrong and an old signature: what was nearly right
// helps nobody but him who guesses.
func problemOf(o Outcome) *problem.Problem {
	switch o {
	case UnknownHook:
		return problem.Of(http.StatusNotFound, "")
	case BadMethod:
		return problem.Of(http.StatusMethodNotAllowed, "Send a POST.")
	case BadSignature, Stale:
		return problem.Of(http.StatusUnauthorized, "The signature is missing, wrong or too old.")
	case TooLarge:
		return problem.Of(http.StatusRequestEntityTooLarge, "")
	case BadEncoding:
		return problem.Of(http.StatusUnsupportedMediaType, "Send the body as it is, without Content-Encoding.")
	case Incomplete:
		return problem.Of(http.StatusBadRequest, "The body could not be read to its end.")
	case StreamFull, NotReplicated, Unavailable, Overloaded:
		return problem.Unavailable("The event could not be stored now. Send it again.", retryAfter)
	default:
		return problem.Of(http.StatusBadRequest, "The delivery is signed, but is not one of this hook's kind.")
	}
}

// publishRefusal tells what kept an event from being stored.
func publishRefusal(err error) *refusal {
	r := &refusal{outcome: Unavailable, reason: "Redis did not store the event", cause: err}
	switch {
	case errors.Is(err, events.ErrInvalid):
		r.outcome, r.reason = Malformed, "the delivery makes no valid event"
	case errors.Is(err, events.ErrTooLarge):
		r.outcome, r.reason = TooLarge, "the event is larger than events.max_event_bytes"
	case errors.Is(err, events.ErrFull):
		r.outcome, r.reason = StreamFull, "the stream is full"
	case errors.Is(err, events.ErrNotReplicated):
		r.outcome, r.reason = NotReplicated, "the event is stored on too few replicas"
	}
	return r
}

// reply is what a provider awaits.
type reply struct {
	status      int
	contentType string
	body        []byte
}

func (r *reply) write(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	if r.contentType != "" {
		w.Header().Set("Content-Type", r.contentType)
	}
	w.WriteHeader(r.status)
	_, _ = w.Write(r.body) //nolint:gosec // JSON under its own type, or nothing; the client may be gone
}

// empty is what Slack shows nothing of.
var empty = &reply{status: http.StatusOK}

// receipt tells a provider's list of deliveries which event it was.
func receipt(e *events.Event, duplicate bool) *reply {
	b, err := json.Marshal(struct {
		ID        string `json:"id"`
		Type      string `json:"type"`
		Duplicate bool   `json:"duplicate"`
	}{e.ID, e.Type, duplicate})
	if err != nil {
		return &reply{status: http.StatusAccepted}
	}
	return &reply{status: http.StatusAccepted, contentType: "application/json", body: append(b, '\n')}
}
