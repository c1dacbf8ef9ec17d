package triggers

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/internal/redistest"
)

// A copy that was replayed for one trigger fires that one alone; the extension means nothing on an event that no replay made.
func TestACopyForOneTriggerFiresThatOneAlone(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(
			t, rdb, events.Config{},
			Trigger{Name: "one", On: "com.acme.**", Run: "log:write", Queue: "one"},
			Trigger{Name: "two", On: "com.acme.email.received", Run: "log:write", Queue: "two"},
		)
		copied := func(id string, extensions map[string]any) *events.Event {
			e := event(t, "com.acme.email.received", `{}`, events.ID(id))
			e.Extensions = extensions
			return e
		}
		b.handled(b.stored(
			copied("all", map[string]any{"replayid": "r", "replayof": "e"}),
			copied("two", map[string]any{"replayid": "r", "replayof": "e", "replaytrigger": "two"}),
			copied("other", map[string]any{"replayid": "r", "replayof": "e", "replaytrigger": "group:two"}),
			copied("forged", map[string]any{"replaytrigger": "two"}),
		))
		got := []int{len(b.jobs("one")), len(b.jobs("two"))}
		if diff := cmp.Diff([]int{2, 3}, got); diff != "" {
			t.Errorf("jobs of each trigger (-want +got):\n%s", diff)
		}
	})
}
