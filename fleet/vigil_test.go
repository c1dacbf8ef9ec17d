package fleet

import (
	"errors"
	"testing"

	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

// Whoever awaits a job while a look of someone who has gone is under way is not forgotten with the answer to that look.
func TestAwaitOutlivesTheLookOfAnEarlierCaller(t *testing.T) {
	t.Parallel()
	v := newVigil(nil, nil)
	v.running = true // by this test
	ref := queue.Ref{Queue: "q", ID: "j"}
	gone := v.join(t.Context(), ref)
	v.quit(gone)
	waits := v.join(t.Context(), ref)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.conclude(gone.of, Job{}, errors.New("no answer to the look"))
	if v.jobs[wire.JobKey(ref.Queue, ref.ID)] != waits.of {
		t.Error("nobody looks at the job any more, and no word of its end is heard")
	}
}
