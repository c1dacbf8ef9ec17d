package job

import (
	"math/rand/v2"
	"time"
)

// Backoff tells how long a job waits after its n-th failed attempt (from 1) ended with err.
type Backoff func(n int, err error) time.Duration

// Exponential doubles the wait from first up to most, and shortens each by a random part of up to a fifth, so that jobs
// that failed together don't come back together.
func Exponential(first, most time.Duration) Backoff {
	return func(n int, _ error) time.Duration {
		wait := first
		for ; n > 1 && wait < most; n-- {
			wait *= 2
		}
		wait = min(wait, most)
		if fifth := wait / 5; fifth > 0 {
			wait -= rand.N(fifth)
		}
		return wait
	}
}
