package guard

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/gateway/keys"
	"github.com/bellhop-dev/bellhop/internal/redistest"
)

var somebody = subject{kind: ofKey, id: "somebody"}

// Three processes together let no more pass than the one bucket gives, and little less.
func TestTheLimitIsTheFleets(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		q := quota{rate: 1000, size: 300}
		var calls atomic.Int64
		rdb.AddHook(counting{&calls})
		var passed atomic.Int64
		began := time.Now()
		took := flood(t, 3, rdb, q, time.Second, &passed)
		most := int64(q.rate*took.Seconds() + q.size + 1)
		t.Logf("%d passed in %v, at most %d may; %d calls to Redis", passed.Load(), took, most, calls.Load())
		if passed.Load() > most {
			t.Errorf("%d passed, at most %d may", passed.Load(), most)
		}
		if least := int64(q.size); passed.Load() < least {
			t.Errorf("%d passed, the first %d should", passed.Load(), least)
		}
		// Each process asks at most 50 times a second, and while its leases grow.
		if most := 3 * (50*int64(time.Since(began)/time.Second+1) + 20); calls.Load() > most {
			t.Errorf("%d calls to Redis, want at most %d", calls.Load(), most)
		}
	})
}

func TestASlowLimitIsExact(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	q := quota{rate: 0.5, size: 5}
	var passed atomic.Int64
	took := flood(t, 2, rdb, q, 500*time.Millisecond, &passed)
	if most := 5 + int64(took.Seconds()*q.rate) + 1; passed.Load() < 5 || passed.Load() > most {
		t.Errorf("%d passed in %v, want 5 to %d", passed.Load(), took, most)
	}
}

// flood sends as fast as it goes through limiters of their own, as different processes have them.
func flood(t *testing.T, processes int, rdb redis.UniversalClient, q quota, d time.Duration, passed *atomic.Int64) time.Duration {
	t.Helper()
	began := time.Now()
	var wg sync.WaitGroup
	for range processes {
		l := newLimiter(rdb, slog.New(slog.DiscardHandler))
		l.within = 30 * time.Second // on a busy machine too, nobody counts alone
		for range 4 {
			wg.Go(func() {
				for time.Since(began) < d {
					if got := l.take(t.Context(), somebody, q); got.ok {
						passed.Add(1)
					} else if got.after <= 0 {
						t.Error("refused, but may come at once")
						return
					}
					runtime.Gosched()
				}
			})
		}
	}
	wg.Wait()
	return time.Since(began)
}

// Without Redis each process counts for itself: neither open wide nor shut, and nobody waits.
func TestWithoutRedis(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]func(*redistest.Server){"killed": (*redistest.Server).Kill, "hanging": (*redistest.Server).Pause} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			rdb := server.Client()
			l := newLimiter(rdb, slog.New(slog.DiscardHandler))
			q := quota{rate: 100, size: 50}
			if !l.take(t.Context(), somebody, q).ok {
				t.Fatal("refused")
			}
			away(server)
			defer server.Resume()
			began, passed, slow := time.Now(), 0, 0
			for time.Since(began) < 1500*time.Millisecond {
				one := time.Now()
				if l.take(t.Context(), somebody, q).ok {
					passed++
				}
				if time.Since(one) > takeWithin/2 {
					slow++
				}
			}
			took := time.Since(began)
			t.Logf("%d passed in %v, %d waited for Redis", passed, took, slow)
			if most := int(q.rate*took.Seconds()+q.size) + 1; passed > most || passed < int(q.size) {
				t.Errorf("%d passed in %v, want %v to %d", passed, took, q.size, most)
			}
			if name == "hanging" {
				server.Resume()
			} else {
				server.Restart()
			}
			eventually(t, "the limits are the fleet's again", func() bool {
				l.take(t.Context(), somebody, q)
				return l.away.Load() == 0
			})
		})
	}
}

// One request in a second tries whether Redis is back; the others don't wait for it.
func TestOneRequestTriesAHangingRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	l := newLimiter(server.Client(), slog.New(slog.DiscardHandler))
	var calls atomic.Int64
	server.Client().AddHook(counting{&calls})
	server.Pause()
	defer server.Resume()
	l.take(t.Context(), somebody, quota{rate: 100, size: 50})
	first, began := calls.Load(), time.Now()
	for i := range 1000 {
		l.take(t.Context(), subject{kind: ofKey, id: strconv.Itoa(i)}, quota{rate: 100, size: 50})
	}
	if n, most := calls.Load()-first, 1+2*int64(time.Since(began)/awayFor); n > most {
		t.Errorf("%d calls to a Redis that hangs, want at most %d", n, most)
	}
}

func TestTakeScript(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		take := func(bucket string, each, size, wanted int) []int64 {
			t.Helper()
			got, err := takeScript.Run(ctx, rdb, []string{bucket}, each, size, wanted).Int64Slice()
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		const hour = 3600 * 1000 * 1000
		for _, step := range []struct {
			wanted int
			want   []int64
		}{{3, []int64{3, 7, 0}}, {4, []int64{4, 3, 0}}, {5, []int64{3, 0, 0}}} {
			if got := take("b", hour, 10, step.wanted); !cmp.Equal(got, step.want) {
				t.Errorf("take %d: %v, want %v", step.wanted, got, step.want)
			}
		}
		if got := take("b", hour, 10, 1); got[0] != 0 || got[2] <= hour*9/10 || got[2] > hour {
			t.Errorf("an empty bucket: %v", got)
		}
		// After the rate was raised, the bucket is empty and no more than that.
		if got := take("b", 1000, 10, 1); got[0] != 0 || got[2] > 1000 {
			t.Errorf("a faster bucket: %v", got)
		}
		eventually(t, "the token grows", func() bool { return take("b", 1000, 10, 1)[0] == 1 })
		if ttl := rdb.PTTL(ctx, "b").Val(); ttl == -1 || ttl > time.Second {
			t.Errorf("the bucket stays for %v, though it is full in 10 ms", ttl)
		}
	})
}

// Many addresses fill neither this process' memory nor Redis'.
func TestManyAddresses(t *testing.T) {
	t.Parallel()
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1, DialerRetries: 1}) // away: it is about memory
	t.Cleanup(func() { rdb.Close() })
	l := newLimiter(rdb, slog.New(slog.DiscardHandler))
	for i := range 4 * maxBuckets {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		l.take(t.Context(), subject{kind: ofAddress, addr: addr}, quota{rate: 10, size: 10})
	}
	n := 0
	for i := range l.shards {
		n += len(l.shards[i].buckets)
		if len(l.shards[i].buckets) != l.shards[i].recent.Len() {
			t.Error("map and list differ")
		}
	}
	if n > maxBuckets || n < maxBuckets/2 {
		t.Errorf("%d buckets are kept", n)
	}
}

func TestTooManyRequests(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{AddressRate: 0.1, AddressBurst: 30 * time.Second, Rate: 0.1, Burst: 50 * time.Second})
	token := b.key(keys.Key{Name: "slow", Scopes: []keys.Scope{keys.Publish}})
	fast := b.key(keys.Key{Name: "fast", Scopes: []keys.Scope{keys.Publish}, Rate: 50})
	for i := range 3 {
		w := b.do(http.MethodGet, "/open", nil)
		got := fmt.Sprint(w.Code, w.Header().Get("RateLimit-Limit"), " ", w.Header().Get("RateLimit-Remaining"), " ", w.Header().Get("RateLimit-Policy"))
		if want := fmt.Sprintf("2003 %d 3;w=30", 2-i); got != want {
			t.Errorf("request %d: %s, want %s", i, got, want)
		}
	}
	w := b.do(http.MethodGet, "/open", nil)
	problemOf(t, w, http.StatusTooManyRequests)
	for _, name := range []string{"Retry-After", "RateLimit-Reset"} {
		if n, err := strconv.Atoi(w.Header().Get(name)); err != nil || n < 1 || n > 30 {
			t.Errorf("%s: %q", name, w.Header().Get(name))
		}
	}
	if w := b.do(http.MethodGet, "/open", nil, from("198.51.100.1:1")); w.Code != http.StatusOK {
		t.Errorf("another address: %d", w.Code)
	}
	for range 3 {
		b.do(http.MethodGet, "/open", nil, from("[2001:db8::1]:1"))
	}
	if w := b.do(http.MethodGet, "/open", nil, from("[2001:db8::ffff:1]:1")); w.Code != http.StatusTooManyRequests {
		t.Errorf("another address of the same /64: %d", w.Code)
	}

	// A good key has a limit of its own, wherever it comes from.
	for i := range 6 {
		want := http.StatusOK
		if i == 5 {
			want = http.StatusTooManyRequests
		}
		if w := b.do(http.MethodPost, "/publish/1", nil, bearer(token), from(fmt.Sprintf("203.0.113.%d:1", i))); w.Code != want {
			t.Errorf("request %d of the key: %d, want %d", i, w.Code, want)
		}
	}
	if w := b.do(http.MethodPost, "/publish/1", nil, bearer(fast)); w.Code != http.StatusOK || w.Header().Get("RateLimit-Limit") != "2500" {
		t.Errorf("a key with a rate of its own: %d %v", w.Code, w.Header())
	}
	if n := b.seen.count(RejectedLimit); n != 3 {
		t.Errorf("%d were counted as rejected, want 3", n)
	}
}

// S6: a flood of wrong keys gets 429, and its neighbours with a good key do not feel it.
func TestWrongKeysAreLimited(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{FailureRate: 0.1})
	good := b.key(keys.Key{Name: "good", Scopes: []keys.Scope{keys.Publish}})
	statuses := make(map[int]int)
	for range 200 {
		w := b.do(http.MethodPost, "/publish/1", strings.NewReader("{}"), bearer("bh_wrong"))
		statuses[w.Code]++
		if w.Code == http.StatusTooManyRequests && w.Header().Get("Retry-After") == "" {
			t.Fatal("no Retry-After")
		}
	}
	if statuses[http.StatusUnauthorized] > failuresAtOnce+10 || statuses[http.StatusUnauthorized] < failuresAtOnce || statuses[http.StatusUnauthorized]+statuses[http.StatusTooManyRequests] != 200 {
		t.Errorf("statuses: %v", statuses)
	}
	if w := b.do(http.MethodPost, "/publish/1", nil, bearer(good)); w.Code != http.StatusOK {
		t.Errorf("a good key from the same address: %d", w.Code)
	}
	if w := b.do(http.MethodPost, "/publish/1", nil, bearer("bh_wrong"), from("203.0.113.1:1")); w.Code != http.StatusUnauthorized {
		t.Errorf("another address: %d", w.Code)
	}
}

func TestNoLimit(t *testing.T) {
	t.Parallel()
	b := setup(t, Config{AddressRate: -1, FailureRate: -1})
	for range 3000 {
		if w := b.do(http.MethodGet, "/open", nil); w.Code != http.StatusOK || w.Header().Get("RateLimit-Limit") != "" {
			t.Fatal(w.Code, w.Header())
		}
	}
}

type counting struct{ calls *atomic.Int64 }

func (c counting) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (c counting) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.calls.Add(1)
		return next(ctx, cmd)
	}
}

func (c counting) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
