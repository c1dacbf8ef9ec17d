package acceptance_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// hookService is what the jobs call: it answers all of them well, and keeps the books by job id.
type hookService struct {
	*httptest.Server
	expected map[hooked]delivery

	mu     sync.Mutex
	jobs   map[string]*hookJob // by Idempotency-Key, which is the job's id
	jobOf  map[hooked]string
	coming map[string]int // what is excused of jobs that have not called yet
	faults []string
}

type hookJob struct {
	hooked
	successes int
	open      int
	excused   int // violent moments after which its end was not written
}

func newHookService(t testing.TB, expected map[hooked]delivery) *hookService {
	t.Helper()
	s := &hookService{expected: expected, jobs: make(map[string]*hookJob), jobOf: make(map[hooked]string), coming: make(map[string]int)}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *hookService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h, id := hooked{r.Header.Get("X-Event-Id"), strings.TrimPrefix(r.URL.Path, "/")}, r.Header.Get("Idempotency-Key")
	j := s.arrived(h, id)
	if j == nil {
		w.WriteHeader(http.StatusTeapot) // final: the mistake is in the books
		return
	}
	<-time.After(2 * time.Millisecond)
	s.mu.Lock()
	j.open--
	j.successes++
	s.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

func (s *hookService) arrived(h hooked, id string) *hookJob {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.expected[h]; !ok || id == "" {
		s.faults = append(s.faults, "nobody expects the call of event "+h.event+" by rule "+h.rule)
		return nil
	}
	if other, taken := s.jobOf[h]; taken && other != id {
		s.faults = append(s.faults, "event "+h.event+" and rule "+h.rule+" have two jobs, "+other+" and "+id)
	}
	s.jobOf[h] = id
	j := s.jobs[id]
	if j == nil {
		j = &hookJob{hooked: h, excused: s.coming[id]}
		s.jobs[id] = j
	}
	if j.hooked != h {
		s.faults = append(s.faults, "job "+id+" is of two matches")
	}
	j.open++
	return j
}

// mark excuses one more call of each job that has called and whose end is not written: nobody can know that it took place. The calls of
// those that run may still be on their way.
func (s *hookService) mark(written map[string]bool, running []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, j := range s.jobs {
		if !written[id] {
			j.excused++
		}
	}
	for _, id := range running {
		if s.jobs[id] == nil {
			s.coming[id]++
		}
	}
}

func (s *hookService) missing() (missing []hooked) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for h := range s.expected {
		if j := s.jobs[s.jobOf[h]]; j == nil || j.successes == 0 {
			missing = append(missing, h)
		}
	}
	return missing
}

// check wants one job for each match, the same ones as Redis has completed. A call was seen twice only where the first one's worker, or
// its Redis, was killed before the job's end was written.
func (s *hookService) check(t testing.TB, completed map[string]bool) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, fault := range s.faults {
		t.Error(fault)
	}
	if len(s.jobs) != len(s.expected) {
		t.Errorf("%d jobs have called, want %d", len(s.jobs), len(s.expected))
	}
	again := 0
	for id, j := range s.jobs {
		if !completed[id] {
			t.Errorf("job %s of %v has called, and is not completed in Redis", id, j.hooked)
		}
		if j.successes > 1+j.excused {
			t.Errorf("job %s of %v has called %d times, and %d were cut off from Redis", id, j.hooked, j.successes, j.excused)
		}
		again += j.successes - 1
	}
	// Two moments, each of which cuts off no more than one worker runs at once.
	if most := 2 * hookConcurrency; again > most {
		t.Errorf("%d calls were seen twice, at most %d were in work when a worker or Redis was killed", again, most)
	}
	t.Logf("%d matches, as many jobs, each completed once; %d of their calls were made twice", len(s.expected), again)
}
