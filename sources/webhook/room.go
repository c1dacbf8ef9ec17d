package webhook

// maxInWork bounds the deliveries between their last byte and their answer. Beyond it they are sent away at once: a provider that waits in
// vain sends again too, and what was done for it meanwhile was done for nothing. At 4,000 a second and 50 ms each, 200 are in work.
const maxInWork = 256

// room is a semaphore that nobody waits for.
type room chan struct{}

func (r room) enter() bool {
	select {
	case r <- struct{}{}:
		return true
	default:
		return false
	}
}

func (r room) leave() { <-r }
