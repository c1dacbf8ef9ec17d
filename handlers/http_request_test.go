package handlers_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/bellhop-dev/bellhop/handlers"
	"github.com/bellhop-dev/bellhop/job"
	"github.com/bellhop-dev/bellhop/tasks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestHTTPSendsWhatThePayloadSays(t *testing.T) {
	t.Parallel()
	type seen struct {
		Method, Path, Query, Body, Type, Agent, Key, Trace, Host, Custom string
	}
	var got seen
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		h := r.Header
		got = seen{
			r.Method, r.URL.Path, r.URL.RawQuery, string(body), h.Get("Content-Type"), h.Get("User-Agent"),
			h.Get("Idempotency-Key"), h.Get("Traceparent"), r.Host, h.Get("X-Custom"),
		}
	})
	h := newHTTP(t, handlers.HTTPConfig{Allow: allowLoopback.Allow, UserAgent: "test/1"})
	host := s.Listener.Addr().String()
	trace := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

	for name, test := range map[string]struct {
		payload tasks.HTTPRequest
		want    seen
	}{
		"get": {
			tasks.HTTPRequest{URL: s.URL + "/a?b=c"},
			seen{Method: "GET", Path: "/a", Query: "b=c", Agent: "test/1", Key: "job-1", Trace: trace, Host: host},
		},
		"json": {
			tasks.HTTPRequest{URL: s.URL, JSON: map[string]any{"n": uint64(12345678901234567890), "tag": "<b>"}},
			seen{Method: "POST", Path: "/", Body: `{"n":12345678901234567890,"tag":"\u003cb\u003e"}`, Type: "application/json", Agent: "test/1", Key: "job-1", Trace: trace, Host: host},
		},
		"body and headers of its own": {
			tasks.HTTPRequest{URL: s.URL, Method: "put", Body: "a=b", Headers: map[string]string{
				"content-type": "application/x-www-form-urlencoded", "idempotency-key": "mine", "TRACEPARENT": "theirs", "user-agent": "me", "host": "virtual.example", "x-custom": "1",
			}},
			seen{Method: "PUT", Path: "/", Body: "a=b", Type: "application/x-www-form-urlencoded", Agent: "me", Key: "mine", Trace: "theirs", Host: "virtual.example", Custom: "1"},
		},
	} {
		got = seen{}
		if _, err := runJob(t, h, &job.Job{ID: "job-1", Headers: map[string]string{"traceparent": trace}}, test.payload); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestHTTPIdempotencyKeyIsTheSameOnEveryAttempt(t *testing.T) {
	t.Parallel()
	var keys []string
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		keys = append(keys, r.Header.Get("Idempotency-Key"))
		if len(keys) < 3 {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	h := newHTTP(t, allowLoopback)
	for attempt := 1; attempt <= 3; attempt++ {
		_, err := runJob(t, h, &job.Job{ID: "bücher/7", Attempt: attempt}, tasks.HTTPRequest{URL: s.URL, Body: "x"})
		if attempt < 3 {
			wantRetry(t, err, "502 Bad Gateway")
		} else if err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff([]string{"b%C3%BCcher%2F7", "b%C3%BCcher%2F7", "b%C3%BCcher%2F7"}, keys); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
}

func TestHTTPStatusDecides(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		status, err := strconv.Atoi(r.URL.Path[1:])
		if err != nil {
			t.Error(err)
		}
		w.WriteHeader(status)
		if status != 204 && status != 304 {
			answer(w, "field \"email\"\n is missing")
		}
	})
	h := newHTTP(t, allowLoopback)
	for _, status := range []int{200, 201, 202, 204, 299} {
		j, err := run(t, h, tasks.HTTPRequest{URL: fmt.Sprintf("%s/%d", s.URL, status)})
		if err != nil {
			t.Errorf("%d: %v", status, err)
		} else if got := resultOf(t, j).Status; got != status {
			t.Errorf("%d: kept %d", status, got)
		}
	}
	for _, status := range []int{408, 425, 429, 500, 501, 502, 503, 504, 599} {
		j, err := run(t, h, tasks.HTTPRequest{URL: fmt.Sprintf("%s/%d", s.URL, status)})
		wantRetry(t, err, fmt.Sprint("GET ", s.URL, ": answered ", status), `field "email" is missing`)
		if errors.As(err, new(*job.RetryError)) {
			t.Errorf("%d without Retry-After names a wait: %v", status, err)
		}
		if j.Result() != nil {
			t.Errorf("%d: kept %s", status, j.Result())
		}
	}
	for _, status := range []int{300, 301, 304, 307, 400, 401, 403, 404, 405, 409, 410, 418, 422, 451} {
		_, err := run(t, h, tasks.HTTPRequest{URL: fmt.Sprintf("%s/%d", s.URL, status)})
		wantDiscard(t, err, fmt.Sprint("answered ", status))
	}
}

func TestHTTPRetryAfter(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", r.URL.Query().Get("after"))
		w.WriteHeader(http.StatusTooManyRequests)
	})
	h := newHTTP(t, allowLoopback)
	ask := func(after string) (time.Duration, bool) {
		_, err := run(t, h, tasks.HTTPRequest{URL: s.URL + "?after=" + strings.NewReplacer(" ", "%20", ":", "%3A").Replace(after)})
		wantRetry(t, err, "429 Too Many Requests")
		var retry *job.RetryError
		return retryIn(err, &retry), retry != nil
	}
	for after, want := range map[string]time.Duration{
		"1": time.Second, "120": 2 * time.Minute, "86401": 24 * time.Hour, "99999999999999999999999": 24 * time.Hour,
		"0": 0, "-5": 0, "": 0, "soon": 0, "1.5": 0,
		time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat):       0,
		time.Now().Add(9999 * time.Hour).UTC().Format(http.TimeFormat): 24 * time.Hour,
	} {
		if got, ok := ask(after); got != want || ok != (want > 0) {
			t.Errorf("Retry-After %q: got %v (%v), want %v", after, got, ok, want)
		}
	}
	at := time.Now().Add(10 * time.Minute).Truncate(time.Second)
	for _, layout := range []string{http.TimeFormat, time.RFC850, time.ANSIC} {
		before := time.Now()
		got, ok := ask(at.UTC().Format(strings.Replace(layout, "MST", "GMT", 1)))
		if least, most := time.Until(at), at.Sub(before); !ok || got < least || got > most {
			t.Errorf("%s: got %v (%v), want %v to %v", layout, got, ok, least, most)
		}
	}
}

func retryIn(err error, retry **job.RetryError) time.Duration {
	if errors.As(err, retry) {
		return (*retry).In
	}
	return 0
}

func TestHTTPKeepsTheResponse(t *testing.T) {
	t.Parallel()
	bodies := map[string]string{
		"/text": `{"ok":true}`, "/binary": "\xff\xfe\x00", "/exact": strings.Repeat("a", 16), "/long": strings.Repeat("a", 17),
		"/cut-rune": strings.Repeat("a", 15) + "ü" + "b", "/empty": "",
	}
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x")
		w.Header().Set("Set-Cookie", "session=1")
		w.Header().Set("X-Request-Id", strings.Repeat("r", 5000))
		answer(w, bodies[r.URL.Path])
	})
	h := newHTTP(t, handlers.HTTPConfig{Allow: allowLoopback.Allow, MaxResponseBytes: 16})
	headers := map[string]string{"Content-Type": "application/x", "X-Request-Id": strings.Repeat("r", 1024)}
	for path, want := range map[string]tasks.HTTPResponse{
		"/text":     {Body: `{"ok":true}`},
		"/binary":   {Body: "//4A", Base64: true},
		"/exact":    {Body: strings.Repeat("a", 16)},
		"/long":     {Body: strings.Repeat("a", 16), Truncated: true},
		"/cut-rune": {Body: strings.Repeat("a", 15), Truncated: true},
		"/empty":    {},
	} {
		j, err := run(t, h, tasks.HTTPRequest{URL: s.URL + path})
		if err != nil {
			t.Fatal(err)
		}
		want.Status, want.Headers = 200, headers
		if diff := cmp.Diff(want, resultOf(t, j)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
}

// A finished call must not fail because its response grew when it was encoded, nor may a response without end fill the memory.
func TestHTTPResultAlwaysFits(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		chunk := []byte(strings.Repeat(map[string]string{"/control": "\x01", "/binary": "\xff"}[r.URL.Path], 1<<16))
		for r.Context().Err() == nil {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	h := newHTTP(t, handlers.HTTPConfig{Allow: allowLoopback.Allow, MaxResponseBytes: job.MaxResultBytes})
	for _, path := range []string{"/control", "/binary"} {
		j, err := run(t, h, tasks.HTTPRequest{URL: s.URL + path})
		if err != nil {
			t.Fatal(err)
		}
		if r := resultOf(t, j); !r.Truncated || len(j.Result()) > job.MaxResultBytes || len(r.Body) < job.MaxResultBytes/8 {
			t.Errorf("%s: %d bytes kept, truncated %v", path, len(j.Result()), r.Truncated)
		}
	}
}

func TestHTTPTimeouts(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			w.Header().Set("Content-Length", "10")
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done()
	})
	h := newHTTP(t, handlers.HTTPConfig{Allow: allowLoopback.Allow, Timeout: 50 * time.Millisecond})
	for _, p := range []tasks.HTTPRequest{
		{URL: s.URL + "/head"}, {URL: s.URL + "/body"}, {URL: s.URL + "/head", Timeout: "20ms"},
	} {
		_, err := run(t, h, p)
		wantRetry(t, err, "no whole response within "+map[string]string{"": "50ms", "20ms": "20ms"}[p.Timeout])
	}

	ctx, stop := context.WithCancel(t.Context())
	stop()
	err := h.Request(ctx, tasks.HTTPRequest{URL: s.URL})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("stopped job: got %v", err)
	}
}

func TestHTTPNetworkFaultsRetry(t *testing.T) {
	t.Parallel()
	broken := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/half":
			w.Header().Set("Content-Length", "100")
			answer(w, "half")
		case "/garbage":
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				answer(conn, "SECRET-NOISE\r\n\r\n")
				conn.Close()
			}
		case "/big":
			w.Header().Set("X-Big", strings.Repeat("x", 80<<10))
		default:
			panic(http.ErrAbortHandler)
		}
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "http://" + listener.Addr().String()
	listener.Close()

	h := newHTTP(t, allowLoopback)
	for url, part := range map[string]string{
		closed: "connection refused", broken.URL + "/half": "unexpected EOF", broken.URL + "/abort": "EOF",
		broken.URL + "/garbage": "malformed HTTP", broken.URL + "/big": "exceeded 65536 bytes",
		"http://no-such-host.invalid": "lookup no-such-host.invalid",
	} {
		_, err := run(t, h, tasks.HTTPRequest{URL: url})
		wantRetry(t, err, part)
		if strings.Contains(err.Error(), "SECRET-NOISE") {
			t.Errorf("%v tells what the server sent", err)
		}
	}
}

func TestHTTPRefusesPayloadsThatCannotWork(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	s := serve(t, func(http.ResponseWriter, *http.Request) { calls.Add(1) })
	h := newHTTP(t, allowLoopback)
	for name, test := range map[string]struct {
		payload tasks.HTTPRequest
		part    string
	}{
		"no url":        {tasks.HTTPRequest{}, "url: it must begin with http"},
		"scheme":        {tasks.HTTPRequest{URL: "file:///etc/passwd"}, "it must begin with http"},
		"gopher":        {tasks.HTTPRequest{URL: "gopher://127.0.0.1:6379/_FLUSHALL"}, "it must begin with http"},
		"no host":       {tasks.HTTPRequest{URL: "http:///path"}, "names no host"},
		"bad url":       {tasks.HTTPRequest{URL: "http://user:pa/ss@host"}, "url: it is not valid"},
		"json and body": {tasks.HTTPRequest{URL: s.URL, JSON: 1, Body: "x"}, "json and body are both given"},
		"method":        {tasks.HTTPRequest{URL: s.URL, Method: "GET / HTTP/1.1\r\n"}, "method:"},
		"connect":       {tasks.HTTPRequest{URL: s.URL, Method: "CONNECT"}, "method:"},
		"timeout":       {tasks.HTTPRequest{URL: s.URL, Timeout: "30"}, "timeout:"},
		"zero timeout":  {tasks.HTTPRequest{URL: s.URL, Timeout: "0s"}, "timeout:"},
		"header name":   {tasks.HTTPRequest{URL: s.URL, Headers: map[string]string{"a b": "c"}}, "headers:"},
		"header value":  {tasks.HTTPRequest{URL: s.URL, Headers: map[string]string{"a": "c\r\nX-Evil: 1"}}, "headers:"},
	} {
		_, err := run(t, h, test.payload)
		if !job.IsDiscard(err) || !strings.Contains(err.Error(), test.part) {
			t.Errorf("%s: got %v, want a discard with %q", name, err, test.part)
		}
	}
	if n := calls.Load(); n != 0 {
		t.Errorf("%d calls were made", n)
	}
}

func TestHTTPReusesConnections(t *testing.T) {
	t.Parallel()
	var opened atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/fail" {
			w.WriteHeader(http.StatusInternalServerError)
		}
		answer(w, "answer")
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	h := newHTTP(t, allowLoopback)
	for range 10 {
		if _, err := run(t, h, tasks.HTTPRequest{URL: s.URL}); err != nil {
			t.Fatal(err)
		}
		_, err := run(t, h, tasks.HTTPRequest{URL: s.URL + "/fail"})
		wantRetry(t, err)
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("20 calls opened %d connections, want 1", n)
	}
}
