package queue_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

func TestAGroupBecomesASetAndIsDeleted(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		for _, id := range []string{"a", "bad", "c"} {
			m := message(id)
			m.GroupKey = "digest"
			m.UniqueKey = wire.UniqueKey(q, m.Type, m.Payload)
			b.store(queue.Entry{Message: m, UniqueFor: time.Hour})
		}
		rdb.HSet(b.ctx, wire.JobKey(q, "bad"), "msg", "\xff")
		if sets, err := b.client.Aggregate(b.ctx, q, queue.Grouping{Grace: time.Hour, MaxSize: 4}); err != nil || len(sets) != 0 {
			t.Fatalf("%v, %v", sets, err)
		}
		sets, err := b.client.Aggregate(b.ctx, q, queue.Grouping{Grace: time.Hour, MaxSize: 3})
		if err != nil || len(sets) != 1 {
			t.Fatalf("%v, %v", sets, err)
		}
		s := sets[0]
		if err := b.client.ReadSet(b.ctx, &s); err != nil {
			t.Fatal(err)
		}
		if len(s.Messages) != 2 || s.Messages[0].ID != "a" || s.Messages[1].ID != "c" {
			t.Errorf("%+v", s.Messages)
		}
		if d := time.Until(s.Deadline); d < time.Minute || d > 2*time.Minute {
			t.Errorf("deadline in %s", d)
		}
		if ok, err := b.client.DropSet(b.ctx, &s); err != nil || !ok {
			t.Error(ok, err)
		}
		if ok, err := b.client.DropSet(b.ctx, &s); err != nil || ok {
			t.Error("dropped twice", err)
		}
		if b.score(wire.UndecodableKey(q), "bad") < 0 || b.hash("bad")["msg"] != "\xff" {
			t.Error("the undecodable job is lost")
		}
		for _, id := range []string{"a", "c"} {
			if rdb.Exists(b.ctx, wire.JobKey(q, id), wire.UniqueKey(q, "mail:send", message(id).Payload)).Val() != 0 {
				t.Errorf("%s or its lock is left", id)
			}
		}
		if rdb.Exists(b.ctx, wire.AllGroups(q), wire.AllAggregationSets(q)).Val() != 0 {
			t.Error("the group is still listed")
		}
	})
}
