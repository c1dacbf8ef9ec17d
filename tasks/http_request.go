package tasks

import (
	"encoding/json"
	"time"

	"github.com/bellhop-dev/bellhop/job"
)

// HTTPRequest is a call of a service, in whatever language it is written.
type HTTPRequest struct {
	Method  string            `json:"method,omitempty" jsonschema:"HTTP method; GET if left out, POST if there is a body"`
	URL     string            `json:"url" pattern:"^https?://" jsonschema:"http or https address to call"`
	Headers map[string]string `json:"headers,omitempty" jsonschema:"request headers; Idempotency-Key is the job's id unless set here"`

	// JSON is sent as encoding/json writes it; null counts as left out. In a handler it is a json.RawMessage.
	JSON any `json:"json,omitempty" jsonschema:"request body, sent as JSON; not together with body"`

	Body        string `json:"body,omitempty" jsonschema:"request body, sent as it is; not together with json"`
	Timeout     string `json:"timeout,omitempty" jsonschema:"longest time for the whole exchange such as 10s; the job's own timeout bounds it too"`
	NoRedirects bool   `json:"no_redirects,omitempty" jsonschema:"do not follow redirects; one then ends the job for good"`
}

// UnmarshalJSON keeps the value of json to the letter: decoded into an any, an integer above 2^53 would change.
func (r *HTTPRequest) UnmarshalJSON(data []byte) error {
	type plain HTTPRequest
	fields := struct {
		*plain
		JSON json.RawMessage `json:"json"`
	}{plain: (*plain)(r)}
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	r.JSON = nil
	if len(fields.JSON) > 0 && string(fields.JSON) != "null" {
		r.JSON = fields.JSON
	}
	return nil
}

// HTTPResponse is the result of a finished http:request job.
type HTTPResponse struct {
	Status int `json:"status"`

	// Headers are the few that tell what the body is and where to look further.
	Headers map[string]string `json:"headers,omitempty"`

	// Body is text, or base64 if Base64 says so because the body was not UTF-8.
	Body   string `json:"body"`
	Base64 bool   `json:"base64,omitempty"`

	// Truncated tells that the body was longer than what is kept.
	Truncated bool `json:"truncated,omitempty"`
}

// RequestHTTP calls a service. One call takes 30 s at most unless the payload or the worker's settings say otherwise, ten minutes
// in any case. Faults of the network and of the server are tried again 16 times, over about five hours.
// The response is kept for an hour, as an HTTPResponse.
var RequestHTTP = job.Define[HTTPRequest]("http:request",
	job.Timeout(10*time.Minute),
	job.MaxRetry(16), job.Retry(job.Exponential(time.Second, time.Hour)),
	job.Retention(time.Hour))
