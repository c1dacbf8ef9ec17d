package redistest_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

func TestSentinelFollowsTheMaster(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	set := redistest.Sentinel(t)
	rdb := set.Client()
	if err := rdb.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if n, err := rdb.Do(ctx, "WAIT", 1, 5000).Int(); err != nil || n != 1 {
		t.Fatalf("acknowledged by %d replicas, %v", n, err)
	}
	set.KillMaster()
	// Until the client has heard of the switch, its calls fail.
	var got string
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		if got, err = rdb.Get(ctx, "k").Result(); err == nil {
			break
		}
	}
	if got != "v" {
		t.Errorf("got %q, %v after the failover", got, err)
	}
}

func TestClusterServesEverySlot(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	set := redistest.Cluster(t)
	for i := range 100 {
		if err := set.Client().Set(ctx, fmt.Sprintf("k%d", i), i, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for i, node := range set.Nodes {
		if n := node.Admin().DBSize(ctx).Val(); n == 0 {
			t.Errorf("node %d holds no key", i)
		}
	}
}
