package gateway

import (
	"testing"
	"time"

	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/problem"
	"github.com/bellhop-dev/bellhop/job"
)

// In the durable mode no 2xx is given while the replicas are behind, however often the request is sent: the repetition meets the job that
// the first try stored, which no replica has either.
func TestDurableRepetitionIsNotAcknowledgedEither(t *testing.T) {
	t.Parallel()
	d := setup(t, func(_ *Config, deps *Deps) { // a Redis without a replica
		deps.Jobs = job.NewClient(deps.Redis, job.Durable(1, 50*time.Millisecond))
	})
	const named = `{"task":"test:greet","id":"named","payload":{"name":"Ada"}}`
	for i := range 3 {
		for what, call := range map[string]func() answer{
			"derived id": func() answer { return d.call("POST", "/v1/jobs", keys.Enqueue, greetAda, "Idempotency-Key: k") },
			"given id":   func() answer { return d.call("POST", "/v1/jobs", keys.Enqueue, named) },
			"batch": func() answer {
				return d.call("POST", "/v1/jobs/batch", keys.Enqueue, `{"jobs":[`+greetAda+`,`+named+`]}`, "Idempotency-Key: b")
			},
		} {
			a := call()
			if p := want[problem.Problem](t, a, 503); a.header.Get("Retry-After") == "" || p.Detail == "" {
				t.Errorf("%s, try %d: %+v", what, i+1, p)
			}
		}
	}
	if n := d.pendingJobs(); n != 3 {
		t.Errorf("%d jobs were stored, want 3", n)
	}
}
