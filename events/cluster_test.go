package events

import (
	"testing"
	"time"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

// All keys of a script lie in one slot, so the whole path works on Redis Cluster.
func TestCluster(t *testing.T) {
	t.Parallel()
	c := newClient(t, redistest.Cluster(t).Client(), Config{Retention: time.Millisecond, MaxEvents: 100})
	var seen recorder
	r := run(t, c, "g", seen.handle, ConsumerOptions{})
	ids := names("e", 95)
	places := publish(t, c, ids...)
	if again := publish(t, c, ids[0]); again[0] != places[0] {
		t.Errorf("published again, it is at %s, was at %s", again[0], places[0])
	}
	eventually(t, "all are handled", func() bool { return seen.count() == len(ids) && settled(t, c, "g")() })
	publish(t, c, names("more", 20)...) // makes room
	if err := c.AddDeadMatch(t.Context(), DeadMatch{StreamID: places[0], Trigger: "t", Event: newEvent(t, "a")}); err != nil {
		t.Error(err)
	}
	if err := c.RemoveDeadMatch(t.Context(), DeadMatchID(places[0], "", "t")); err != nil {
		t.Error(err)
	}
	if err := c.rdb.XAdd(t.Context(), junkEntry(c)).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "junk is set aside", func() bool {
		s, err := c.Stats(t.Context())
		return err == nil && s.Undecodable == 1
	})
	r.stop(t)
}
