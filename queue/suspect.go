package queue

import "sync"

// suspicion sees to it that a process holds one suspect at most: a job that one more crash would quarantine. So that crash is
// its own.
type suspicion struct {
	mu      sync.Mutex
	on      *Job  // the suspect that the process holds
	fetcher *lane // a fetch that may bring one is under way
}

// reserve answers 1 if the lane's fetch may bring a suspect.
func (s *suspicion) reserve(l *lane) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.on != nil || s.fetcher != nil && s.fetcher != l {
		return 0
	}
	s.fetcher = l
	return 1
}

// fall notes that a fetch has brought a suspect.
func (s *suspicion) fall(job *Job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.on = job
}

// settle ends a lane's reservation.
func (s *suspicion) settle(l *lane) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fetcher == l {
		s.fetcher = nil
	}
}

// lift makes room for another suspect once this job has ended.
func (s *suspicion) lift(job *Job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.on != nil && s.on.Queue == job.Queue && s.on.ID == job.ID && s.on.Attempt == job.Attempt {
		s.on = nil
	}
}
