package endpoints_test

import (
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/endpoints"
	"github.com/bellhop-dev/bellhop/internal/redistest"
)

// However well it does, an endpoint gets no more calls at once than is allowed: a slow one would hold every slot of the fleet.
func TestMostCalls(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb, endpoints.Config{MaxCalls: 3})
		for range 5 {
			b.end(b.wantGo(), endpoints.Delivered)
		}
		for range 3 {
			b.wantGo()
		}
		b.wantWait("busy")
	})
}
