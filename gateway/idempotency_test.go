package gateway

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/problem"
	"github.com/bellhop-dev/bellhop/internal/redistest"
)

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		d := setupOver(t, rdb)
		first := d.call("POST", "/v1/jobs", keys.Enqueue, greetAda, "Idempotency-Key: k")
		stored := want[StoredJob](t, first, 201)
		if first.header.Get("Idempotent-Replayed") != "" {
			t.Error("the first answer says that it was given before")
		}
		replay := d.call("POST", "/v1/jobs", keys.Enqueue, greetAda, "Idempotency-Key: k")
		if got := want[StoredJob](t, replay, 201); got != stored || replay.header.Get("Idempotent-Replayed") != "true" ||
			replay.header.Get("Location") != first.header.Get("Location") {
			t.Errorf("replayed %+v %v", got, replay.header)
		}
		ttl, err := rdb.PTTL(t.Context(), idempotencyPrefix+stored.ID).Result()
		if err != nil || ttl < 23*time.Hour || ttl > 24*time.Hour {
			t.Errorf("it is remembered for %v, %v", ttl, err)
		}

		p := want[problem.Problem](t, d.call("POST", "/v1/jobs", keys.Enqueue, `{"task":"test:greet","payload":{"name":"Bob"}}`, "Idempotency-Key: k"), 422)
		if p.Type != "urn:bellhop:problem:idempotency-key-reused" || p.Errors[0].Header != "Idempotency-Key" {
			t.Errorf("another request: %+v", p)
		}
		want[problem.Problem](t, d.call("POST", "/v1/jobs/batch", keys.Enqueue, `{"jobs":[`+greetAda+`]}`, "Idempotency-Key: k"), 422)

		others := want[StoredJob](t, d.call("POST", "/v1/jobs", keys.Admin, greetAda, "Idempotency-Key: k"), 201)
		if others.ID == stored.ID {
			t.Error("another API key shares it")
		}
		if n := d.pendingJobs(); n != 2 {
			t.Errorf("%d jobs were stored", n)
		}
	})
}

func TestIdempotencyKeyIsFreeAfterARefusal(t *testing.T) {
	t.Parallel()
	d := setup(t)
	want[problem.Problem](t, d.call("POST", "/v1/jobs", keys.Enqueue, `{"task":"test:greet","payload":{}}`, "Idempotency-Key: k"), 422)
	want[StoredJob](t, d.call("POST", "/v1/jobs", keys.Enqueue, greetAda, "Idempotency-Key: k"), 201)
	for _, key := range []string{"é", strings.Repeat("x", 256)} {
		p := want[problem.Problem](t, d.call("POST", "/v1/jobs", keys.Enqueue, greetAda, "Idempotency-Key: "+key), 422)
		if p.Errors[0].Header != "Idempotency-Key" {
			t.Errorf("%q: %+v", key, p)
		}
	}
}

func TestIdempotencyKeyOfARequestAtWork(t *testing.T) {
	t.Parallel()
	d := setup(t)
	list, err := keys.NewStore(d.rdb, keys.Config{}).List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.WithValue(t.Context(), bodyKey{}, []byte(greetAda))
	for _, k := range list {
		if k.Name == string(keys.Enqueue) {
			ctx = keys.NewContext(ctx, k)
		}
	}
	other, err := d.gateway.newClaim(ctx, "enqueue-job", "k")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // a question that Redis was asked twice
		if recorded, err := other.take(ctx); err != nil || recorded != "" {
			t.Fatalf("took %q, %v", recorded, err)
		}
	}
	a := d.call("POST", "/v1/jobs", keys.Enqueue, greetAda, "Idempotency-Key: k")
	if p := want[problem.Problem](t, a, http.StatusConflict); p.Type != "urn:bellhop:problem:idempotency-key-running" || a.header.Get("Retry-After") == "" {
		t.Errorf("%+v %v", p, a.header)
	}
	other.settle(ctx, StoredJob{ID: "7"}, nil)
	if got := want[StoredJob](t, d.call("POST", "/v1/jobs", keys.Enqueue, greetAda, "Idempotency-Key: k"), 201); got.ID != "7" {
		t.Errorf("got %+v", got)
	}
	other.settle(ctx, StoredJob{ID: "8"}, nil) // a late word changes nothing
	if got := want[StoredJob](t, d.call("POST", "/v1/jobs", keys.Enqueue, greetAda, "Idempotency-Key: k"), 201); got.ID != "7" {
		t.Errorf("got %+v", got)
	}
}

func TestIdempotencyKeyUsedAtOnce(t *testing.T) {
	t.Parallel()
	d := setup(t)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			a, err := d.try(t.Context(), "POST", "/v1/jobs", keys.Enqueue, greetAda, "Idempotency-Key: k")
			if err != nil || a.status != 201 && a.status != 409 {
				t.Errorf("%d %s %v", a.status, a.body, err)
			}
		})
	}
	all.Wait()
	want[StoredJob](t, d.call("POST", "/v1/jobs", keys.Enqueue, greetAda, "Idempotency-Key: k"), 201)
	if n := d.pendingJobs(); n != 1 {
		t.Errorf("%d jobs were stored", n)
	}
}
