package handlers

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

const (
	// readOfErrors is how much of an error's body is read, and told of it far less: what is secret must be seen whole to be masked.
	readOfErrors  = 64 << 10
	maxRetryAfter = 24 * time.Hour
)

// failed is the outcome of a call that got no whole response. The error that net/http returns is not wrapped: it holds the URL.
func (c *call) failed(ctx, during context.Context, err error) error {
	var address *refusedError
	var final *finalError
	switch {
	case errors.As(err, &address):
		return job.Discard(c.target + ": " + address.Error())
	case errors.As(err, &final):
		return job.Discard(c.target + ": " + final.Error())
	case ctx.Err() != nil:
		return fmt.Errorf("%s: the job was stopped: %w", c.target, ctx.Err())
	case during.Err() != nil:
		return fmt.Errorf("%s: no whole response within %v: %w", c.target, c.timeout, during.Err())
	}
	return errors.New(c.target + ": " + describe(err, c.secrets()))
}

var quoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)

// describe tells a fault of the network. What net/http quotes is what either side sent: a Location, a malformed line.
func describe(err error, s secrets) string {
	var of *url.Error
	for errors.As(err, &of) {
		err = of.Err
	}
	return s.mask(quoted.ReplaceAllString(err.Error(), `"..."`), maxExcerpt)
}

// refused is the outcome of a response that is no 2xx.
func (c *call) refused(resp *http.Response, body []byte) error {
	text := fmt.Sprintf("%s: answered %d", c.target, resp.StatusCode)
	if name := http.StatusText(resp.StatusCode); name != "" {
		text += " " + name
	}
	if excerpt := c.secrets().mask(string(body), maxExcerpt); excerpt != "" {
		text += ": " + excerpt
	}
	switch {
	case isTransient(resp.StatusCode):
		if wait, ok := retryAfter(resp.Header.Get("Retry-After"), time.Now()); ok {
			return job.RetryIn(wait, errors.New(text))
		}
		return errors.New(text)
	case resp.StatusCode/100 == 3 && c.noRedirects:
		text += " (no_redirects is set)"
	}
	return job.Discard(text)
}

func isTransient(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return status >= 500
}

// retryAfter reads both forms of the header, seconds and a date (RFC 9110, 10.2.3). A time that is not ahead tells nothing: the job's own
// back-off holds, or a server could make it spend its attempts at once.
func retryAfter(header string, now time.Time) (time.Duration, bool) {
	header = strings.TrimSpace(header)
	if n, err := strconv.ParseUint(header, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(n, uint64(maxRetryAfter/time.Second))) * time.Second, n > 0
	}
	at, err := http.ParseTime(header)
	if err != nil || !at.After(now) {
		return 0, false
	}
	return min(at.Sub(now), maxRetryAfter), true
}

// keptHeaders are the headers of a response that are kept. Cookies and the like are not.
var keptHeaders = []string{"Content-Type", "Etag", "Last-Modified", "Location", "X-Request-Id"}

const maxKeptHeader = 1 << 10

// keepResult keeps the response as the job's result.
func keepResult(j *job.Job, resp *http.Response, body []byte, most int) error {
	result := tasks.HTTPResponse{Status: resp.StatusCode, Truncated: len(body) > most}
	body = body[:min(len(body), most)]
	for _, name := range keptHeaders {
		if value := resp.Header.Get(name); value != "" {
			if result.Headers == nil {
				result.Headers = make(map[string]string, len(keptHeaders))
			}
			result.Headers[name] = value[:min(len(value), maxKeptHeader)]
		}
	}
	for {
		setBody(&result, body)
		data, err := encode(result)
		if err != nil {
			return fmt.Errorf("keep the response: %w", err)
		}
		if len(data) <= job.MaxResultBytes {
			return j.SetResult(json.RawMessage(data))
		}
		// Escapes and base64 make a body longer than it was. The call is done: keep less of it rather than fail.
		body, result.Truncated = body[:len(body)/2], true
	}
}

func setBody(result *tasks.HTTPResponse, body []byte) {
	text := body
	if result.Truncated {
		text = trimCutRune(body)
	}
	if utf8.Valid(text) {
		result.Body, result.Base64 = string(text), false
		return
	}
	result.Body, result.Base64 = base64.StdEncoding.EncodeToString(body), true
}

// trimCutRune removes a character that was cut in two, so that text stays text.
func trimCutRune(b []byte) []byte {
	for i := 1; i <= min(len(b), utf8.UTFMax); i++ {
		if utf8.RuneStart(b[len(b)-i]) {
			if !utf8.FullRune(b[len(b)-i:]) {
				return b[:len(b)-i]
			}
			break
		}
	}
	return b
}

// encode is json.Marshal without the escapes for HTML, which would make six bytes of every angle bracket.
func encode(v any) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(out.Bytes()), nil
}
