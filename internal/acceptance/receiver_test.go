package acceptance_test

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// receiver is the service that the rules call: it fails a fifth of the calls, never answers some, and keeps the books.
type receiver struct {
	*httptest.Server
	expected map[hooked]delivery

	mu     sync.Mutex
	jobs   map[string]*received // by Idempotency-Key, which is the job's id
	jobOf  map[hooked]string
	faults []string
	open   map[string]int // calls in work, by the worker that made them
	by     map[string]int // calls answered with a 2xx, by worker
}

// received is what came of one job.
type received struct {
	hooked
	attempts  int
	failures  int
	held      int
	successes int
	running   int
	notBefore time.Time // what Retry-After asked for
}

func newReceiver(t testing.TB, expected map[hooked]delivery) *receiver {
	t.Helper()
	r := &receiver{
		expected: expected,
		jobs:     make(map[string]*received), jobOf: make(map[hooked]string),
		open: make(map[string]int), by: make(map[string]int),
	}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

// serviceTime is what a call takes: long enough that a worker which is told to stop has calls in work.
const serviceTime = 20 * time.Millisecond

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the caller went away: no call
	}
	job, verdict := r.arrived(req, body)
	if job == nil {
		w.WriteHeader(http.StatusTeapot) // final: the mistake is in the books
		return
	}
	<-time.After(serviceTime)
	switch verdict {
	case holds:
		<-req.Context().Done() // beyond the request's timeout
	case fails:
		r.left(req, job, func() { job.failures++ })
		w.WriteHeader(http.StatusInternalServerError)
	case failsBusy:
		r.left(req, job, func() { job.failures++; job.notBefore = time.Now().Add(time.Second) })
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
	case succeeds:
		r.left(req, job, func() { job.successes++; r.by[req.UserAgent()]++ })
		w.WriteHeader(http.StatusNoContent)
	}
	if verdict == holds {
		r.left(req, job, func() { job.held++ })
	}
}

type verdict int

const (
	succeeds verdict = iota
	fails
	failsBusy
	holds
)

// verdictOn is the same in every run: a fifth of the calls fails, one in a hundred is never answered.
func verdictOn(h hooked, attempt int) verdict {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %d", h.event, h.rule, attempt))
	switch n := binary.BigEndian.Uint64(sum[:]) % 100; {
	case n < 10:
		return fails
	case n < 20:
		return failsBusy
	case n < 21:
		return holds
	}
	return succeeds
}

// arrived writes a call into the books and looks for everything that must not be; nil for a call that nobody expects.
func (r *receiver) arrived(req *http.Request, body []byte) (*received, verdict) {
	h := hooked{req.Header.Get("X-Event-Id"), strings.TrimPrefix(req.URL.Path, "/")}
	id := req.Header.Get("Idempotency-Key")
	r.mu.Lock()
	defer r.mu.Unlock()
	d, ok := r.expected[h]
	if !ok || id == "" {
		r.fault("%v, job %q: nobody expects this call", h, id)
		return nil, 0
	}
	if other, taken := r.jobOf[h]; taken && other != id {
		r.fault("%v: two jobs, %s and %s", h, other, id)
	}
	r.jobOf[h] = id
	j := r.jobs[id]
	if j == nil {
		j = &received{hooked: h}
		r.jobs[id] = j
		r.checkCall(req, d, h, body)
	}
	switch {
	case j.hooked != h:
		r.fault("job %s is of %v and of %v", id, j.hooked, h)
	case j.successes > 0:
		r.fault("%v: job %s is finished and runs a second time", h, id)
	case j.running > 0:
		r.fault("%v: job %s runs twice at once", h, id)
	case time.Now().Before(j.notBefore):
		r.fault("%v: job %s comes %v before the time that Retry-After asked for", h, id, time.Until(j.notBefore))
	}
	j.attempts++
	j.running++
	r.open[req.UserAgent()]++
	return j, verdictOn(h, j.attempts)
}

// left writes a call's end before the caller can know of it.
func (r *receiver) left(req *http.Request, j *received, how func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	how()
	j.running--
	r.open[req.UserAgent()]--
}

func (r *receiver) checkCall(req *http.Request, d delivery, h hooked, body []byte) {
	m := mirrors[h.rule]
	if req.Method != m.method {
		r.fault("%v: method %s, want %s", h, req.Method, m.method)
	}
	want := m.body(d)
	var got any = string(body)
	if _, text := want.(string); !text {
		decoded, err := decode(body)
		if err != nil {
			r.fault("%v: body: %v", h, err)
			return
		}
		got = decoded
	}
	if diff := cmp.Diff(want, got); diff != "" {
		r.fault("%v: body (-want +got):\n%s", h, diff)
	}
	if h.rule == "archive" && req.Header.Get("X-Event-Source") != d.Source {
		r.fault("%v: source %q, want %q", h, req.Header.Get("X-Event-Source"), d.Source)
	}
}

func (r *receiver) fault(format string, args ...any) {
	r.faults = append(r.faults, fmt.Sprintf(format, args...))
}

// missing are the expected matches that no call has brought, of the events that among names.
func (r *receiver) missing(among func(event string) bool) []hooked {
	r.mu.Lock()
	defer r.mu.Unlock()
	var missing []hooked
	for h := range r.expected {
		if j := r.jobs[r.jobOf[h]]; among(h.event) && (j == nil || j.successes == 0) {
			missing = append(missing, h)
		}
	}
	return missing
}

func (r *receiver) successes() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, j := range r.jobs {
		n += j.successes
	}
	return n
}

func (r *receiver) inWork(worker string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open[worker]
}
