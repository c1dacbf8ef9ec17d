package events

import (
	"errors"
	"testing"
	"time"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

func TestDurablePublishWaitsForReplicas(t *testing.T) {
	t.Parallel()
	set := redistest.Sentinel(t)
	publisher := func(replicas int, within time.Duration) *Client {
		t.Helper()
		c, err := NewClient(set.Client(), Config{Replicas: replicas, ReplicasWithin: within})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	event := func(id string) *Event {
		t.Helper()
		e, err := New("com.acme.paid", "/shop", map[string]int{"cents": 100}, ID(id))
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	durable := publisher(1, 5*time.Second)
	p, err := durable.PublishOne(t.Context(), event("a"))
	if err != nil {
		t.Fatal(err)
	}
	if n := set.Replica.Client().XLen(t.Context(), DefaultPrefix+"stream").Val(); n != 1 {
		t.Errorf("the event was acknowledged, and the replica has %d", n)
	}
	greedy := publisher(2, 50*time.Millisecond)
	if _, err := greedy.PublishOne(t.Context(), event("b")); !errors.Is(err, ErrNotReplicated) {
		t.Errorf("two replicas of one confirmed: %v", err)
	}
	again, err := greedy.PublishOne(t.Context(), event("a"))
	if !errors.Is(err, ErrNotReplicated) || !again.Duplicate || again.StreamID != p.StreamID {
		t.Errorf("a duplicate that too few replicas have: %+v, %v", again, err)
	}
	if again, err = durable.PublishOne(t.Context(), event("b")); err != nil || !again.Duplicate {
		t.Errorf("the replica has it, but: %+v, %v", again, err)
	}
	if _, err := NewClient(set.Client(), Config{Replicas: -1}); err == nil {
		t.Error("a negative number of replicas was taken")
	}
}
