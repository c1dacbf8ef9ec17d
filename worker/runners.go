package worker

// runners are the goroutines that run attempts. They are kept, so that their stacks have grown. The pool's mutex guards them.
//
// To wake a goroutine costs more than a short job. So one is called at a time, and calls the next one before it starts its own job: those of
// jobs that wait for something are all up at once, while one that runs short jobs takes several before the next one has come.
type runners struct {
	todo   []*attempt      // to be started, the oldest first
	idle   []chan struct{} // of those that wait, the last one to have run at the end
	coming bool            // one was called and is not there yet
	closed bool
}

// call is what brings the next runner, to be done without the mutex; nil if none is needed.
func (r *runners) call(start func()) func() {
	if r.coming || len(r.todo) == 0 {
		return nil
	}
	r.coming = true
	if last := len(r.idle) - 1; last >= 0 {
		wake := r.idle[last]
		r.idle = r.idle[:last]
		return func() { wake <- struct{}{} }
	}
	return start
}

// take is the next attempt to start, nil if there is none.
func (r *runners) take() *attempt {
	if len(r.todo) == 0 {
		return nil
	}
	a := r.todo[0]
	r.todo[0] = nil
	if r.todo = r.todo[1:]; len(r.todo) == 0 {
		r.todo = nil
	}
	return a
}

// close sends home those that wait, and the others once they are done.
func (r *runners) close() {
	r.closed = true
	for _, wake := range r.idle {
		close(wake)
	}
	r.idle = nil
}

// startRunner starts a new one.
func (p *pool) startRunner() { go p.run() }

// run is a runner.
func (p *pool) run() {
	gone := true
	defer func() {
		if gone { // a handler has ended its goroutine
			p.mu.Lock()
			call := p.runners.call(p.startRunner)
			p.mu.Unlock()
			if call != nil {
				call()
			}
		}
	}()
	number, wake := goroutine(), make(chan struct{}, 1)
	for a := p.nextAttempt(true, wake); a != nil; a = p.nextAttempt(false, wake) {
		p.attempt(a, number)
	}
	gone = false
}

// nextAttempt waits for something to run, nil once the pool has stopped. came tells that the runner was called.
func (p *pool) nextAttempt(came bool, wake chan struct{}) *attempt {
	for {
		p.mu.Lock()
		if came {
			p.runners.coming = false
		}
		a := p.runners.take()
		if a == nil {
			if p.runners.closed {
				p.mu.Unlock()
				return nil
			}
			p.runners.idle = append(p.runners.idle, wake)
			p.mu.Unlock()
			_, came = <-wake
			continue
		}
		call := p.runners.call(p.startRunner)
		last := len(p.runners.todo) == 0
		p.mu.Unlock()
		if call != nil {
			call()
		}
		if last {
			notify(p.wake) // of slots and ends since: as long as something waited to be started, nobody told
		}
		return a
	}
}
