package handlers

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

const maxRedirects = 5

// call is one attempt of http:request.
type call struct {
	request     *http.Request
	payload     tasks.HTTPRequest
	target      string // method, scheme and host: what errors may tell
	timeout     time.Duration
	noRedirects bool
}

// newCall checks the payload. Its errors are all final.
func newCall(cfg HTTPConfig, j *job.Job, p tasks.HTTPRequest) (*call, error) {
	u, err := parseTarget(p.URL)
	if err != nil {
		return nil, job.Discard("url: " + err.Error())
	}
	body, err := bodyOf(p)
	if err != nil {
		return nil, job.Discard(err.Error())
	}
	method, err := methodOf(p, body != "")
	if err != nil {
		return nil, job.Discard(err.Error())
	}
	timeout, err := timeoutOf(p, cfg.Timeout)
	if err != nil {
		return nil, job.Discard(err.Error())
	}
	request, err := http.NewRequest(method, u.String(), strings.NewReader(body)) //nolint:noctx // Request adds the context
	if err != nil {
		return nil, job.Discard("url: it is not valid")
	}
	if err := setHeaders(request, cfg, j, p); err != nil {
		return nil, job.Discard(err.Error())
	}
	return &call{
		request: request, payload: p, target: method + " " + origin(u),
		timeout: timeout, noRedirects: p.NoRedirects,
	}, nil
}

func parseTarget(raw string) (*url.URL, error) {
	// The parser's own errors quote the URL, and with it what it holds of secrets.
	u, err := url.Parse(strings.TrimSpace(raw))
	if err != nil {
		return nil, errors.New("it is not valid; write for example https://example.com/path, with %-escapes where they are due")
	}
	return u, checkTarget(u)
}

func checkTarget(u *url.URL) error {
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return errors.New("it must begin with http:// or https://")
	case u.Hostname() == "":
		return errors.New("it names no host")
	case looksNumeric(u.Hostname()):
		return errors.New("its host is a number that is no plain IP address; write four decimal numbers, or a name")
	}
	return nil
}

// origin is the part of a URL that may be told.
func origin(u *url.URL) string { return u.Scheme + "://" + strings.ToLower(u.Host) }

func bodyOf(p tasks.HTTPRequest) (string, error) {
	switch {
	case p.JSON == nil:
		return p.Body, nil
	case p.Body != "":
		return "", errors.New("json and body are both given: a request has one body, leave one of them out")
	}
	data, err := encode(p.JSON)
	if err != nil {
		return "", errors.New("json: it can't be encoded")
	}
	return string(data), nil
}

func methodOf(p tasks.HTTPRequest, hasBody bool) (string, error) {
	method := strings.ToUpper(p.Method)
	switch {
	case method == "" && hasBody:
		return http.MethodPost, nil
	case method == "":
		return http.MethodGet, nil
	case method == http.MethodConnect || !isToken(method):
		return "", fmt.Errorf("method: %.20q is none that a request can have; write GET, POST, PUT, PATCH, DELETE or HEAD", method)
	}
	return method, nil
}

func timeoutOf(p tasks.HTTPRequest, otherwise time.Duration) (time.Duration, error) {
	if p.Timeout == "" {
		return otherwise, nil
	}
	d, err := time.ParseDuration(p.Timeout)
	if err != nil || d < time.Millisecond {
		return 0, fmt.Errorf("timeout: %.20q is no duration of at least 1ms; write for example 10s", p.Timeout)
	}
	return d, nil
}

// setHeaders sets the payload's headers and adds ours where it has none. The job's id as Idempotency-Key is the same on every attempt,
// so that a service can tell a repeated call; net/http too takes it as leave to resend on a connection that went stale.
func setHeaders(r *http.Request, cfg HTTPConfig, j *job.Job, p tasks.HTTPRequest) error {
	for _, name := range slices.Sorted(maps.Keys(p.Headers)) {
		value := p.Headers[name]
		if !isToken(name) || !validHeaderValue(value) {
			return fmt.Errorf("headers: %.40q has a name or value that no header may have, such as a space in the name or a line break", name)
		}
		if strings.EqualFold(name, "Host") {
			r.Host = value
			continue
		}
		r.Header.Set(name, value)
	}
	setDefault(r.Header, "User-Agent", cfg.UserAgent)
	if p.JSON != nil {
		setDefault(r.Header, "Content-Type", "application/json")
	}
	if j != nil {
		setDefault(r.Header, "Idempotency-Key", headerSafe(j.ID))
		if trace := j.Headers["traceparent"]; trace != "" && r.Header.Get("Traceparent") == "" {
			setDefault(r.Header, "Traceparent", headerSafe(trace))
			setDefault(r.Header, "Tracestate", j.Headers["tracestate"])
		}
	}
	return nil
}

func setDefault(h http.Header, name, value string) {
	if _, set := h[name]; !set && value != "" && validHeaderValue(value) {
		h.Set(name, value)
	}
}

// headerSafe leaves the ids of most jobs as they are, and escapes those that a header can't carry.
func headerSafe(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0 {
		return s
	}
	return url.QueryEscape(s)
}

func isToken(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`()<>@,;:\"/[]?={}`, r)
	}) < 0
}

func validHeaderValue(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) < 0
}

// finalError is a fault on the way that no retry mends.
type finalError struct{ reason string }

func (e *finalError) Error() string { return e.reason }

func (c *call) checkRedirect(next *http.Request, via []*http.Request) error {
	if c.noRedirects {
		return http.ErrUseLastResponse
	}
	if len(via) > maxRedirects {
		return &finalError{fmt.Sprintf("more than %d redirects", maxRedirects)}
	}
	if err := checkTarget(next.URL); err != nil {
		return &finalError{"redirect to a URL that can't be called: " + err.Error()}
	}
	keepSecretsHome(next, via)
	return nil
}

// harmless headers may go to another host after a redirect, and their values are no secrets.
var harmless = []string{
	"Accept", "Accept-Encoding", "Accept-Language", "Content-Encoding", "Content-Language", "Content-Type",
	"Idempotency-Key", "Traceparent", "Tracestate", "User-Agent",
}

// keepSecretsHome is stricter than net/http, which lets Authorization go to subdomains, X-Api-Key and the like to anyone, and tells the last
// URL with its query as Referer. Once away, they don't come back: the other host would have chosen where to.
func keepSecretsHome(next *http.Request, via []*http.Request) {
	next.Header.Del("Referer")
	if set := via[0].Header.Get("Referer"); set != "" {
		next.Header.Set("Referer", set)
	}
	home := origin(via[0].URL)
	for _, r := range append(slices.Clone(via), next) {
		if origin(r.URL) != home {
			maps.DeleteFunc(next.Header, func(name string, _ []string) bool { return !slices.Contains(harmless, name) })
			return
		}
	}
}
