package triggers

import (
	"testing"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

// A failover may lose the newest change; the next one has its revision then. It is another change all the same.
func TestRulesFollowAStoreThatWentBack(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	s := newStore(t, rdb, Config{})
	put(t, s, logging("a"), Change{})
	version, records := rdb.HGetAll(t.Context(), s.keys.version).Val(), rdb.HGetAll(t.Context(), s.keys.rules).Val()
	lost := put(t, s, Trigger{Name: "a", On: "lost.*", Run: "log:write"}, Change{})
	r := newFollowed(t, Sources{Store: s}, knownTasks(), Config{})

	rdb.Del(t.Context(), s.keys.version, s.keys.rules)
	rdb.HSet(t.Context(), s.keys.version, version)
	rdb.HSet(t.Context(), s.keys.rules, records)
	again := put(t, s, Trigger{Name: "a", On: "kept.*", Run: "log:write"}, Change{})
	if again.Revision != lost.Revision {
		t.Fatalf("revision %d, the lost one had %d", again.Revision, lost.Revision)
	}
	f := &follower{Rules: r.Rules}
	f.beat(t.Context())
	if on := r.Set().byName["a"].On; on != "kept.*" {
		t.Errorf("it runs on %s", on)
	}
}
