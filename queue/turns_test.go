package queue

import (
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
)

// A worker in a large queue and a small one is perhaps the only one that watches the other of the small one: it takes its turns for that.
func TestASmallQueueIsWatchedAsClosely(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		for i := range 20 {
			rdb.ZAdd(ctx, wire.BeatsKey("large"), redis.Z{Score: 1000, Member: fmt.Sprint("w", i)})
		}
		rdb.ZAdd(ctx, wire.BeatsKey("small"), redis.Z{Score: 1000, Member: "other"})
		for _, names := range [][]string{{"large", "small", "nobody's"}, {"small", "large"}} {
			me, err := New(rdb).NewWorker("me", names...)
			if err != nil {
				t.Fatal(err)
			}
			r := me.Reaper(3)
			if _, there := r.seen(t)[post{"small", "other"}]; !there {
				t.Fatal("the other is not watched")
			}
			start := time.Unix(1_000_000_000, 0)
			if wait := r.untilTurn(start); wait > lookAtIdle {
				t.Errorf("queues %v: looks at the other after %v", names, wait)
			}
			if next := r.untilTurn(start.Add(r.untilTurn(start))); next > lookAtIdle {
				t.Errorf("queues %v: looks at the other every %v", names, next)
			}
		}
	})
}
