package faults

import (
	"sync"
	"time"
)

// supervised is a worker that is started again whenever it ends, as compose, systemd and Kubernetes do.
type supervised struct {
	rig  *rig
	opts []roleOption

	mu      sync.Mutex
	process *process
	crashes int
	retired bool
	done    chan struct{}
}

func (r *rig) supervised(opts ...roleOption) *supervised {
	r.t.Helper()
	s := &supervised{rig: r, opts: opts, process: r.worker(opts...), done: make(chan struct{})}
	go s.run()
	r.t.Cleanup(func() { s.retire() })
	return s
}

func (s *supervised) run() {
	defer close(s.done)
	for {
		began := time.Now()
		<-s.current().ended
		if time.Since(began) < 500*time.Millisecond {
			pause(s.rig.t.Context(), 200*time.Millisecond) // between quick deaths, as supervisors do
		}
		s.mu.Lock()
		if s.retired {
			s.mu.Unlock()
			return
		}
		if s.process.err != nil {
			s.crashes++
		}
		s.process = s.rig.spawn(s.opts...)
		s.mu.Unlock()
	}
}

func (s *supervised) current() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process
}

// retire ends the worker for good and returns how often it died before.
func (s *supervised) retire() int {
	s.mu.Lock()
	s.retired = true
	_ = s.process.cmd.Process.Kill()
	s.mu.Unlock()
	<-s.done
	return s.crashes
}
