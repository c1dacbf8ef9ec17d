package guard

import (
	"container/list"
	"context"
	_ "embed"
	"hash/maphash"
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// The rate limits hold for the whole fleet: every token comes out of one bucket in Redis. A process takes them in small leases,
// so that a busy client costs some 20 calls a second and not one for each request. How exact that is: the fleet never
// lets more pass than the bucket gives, rate x time + burst. A process may sit on tokens that another one could use: at most
// leaseShare of the rate, and for leaseFor at most. A client that is not busy has leases of one token: its limit is exact.
//
// While Redis is away, each process counts for itself with the same rate: a fleet of n lets n times as much pass, never everything.
const (
	leaseShare = 50 * time.Millisecond // a lease is at most what grows in this time
	leaseFor   = time.Second           // what was not used by then is given up
	busyWithin = 100 * time.Millisecond
	// An empty bucket is not asked again before this, so that a flood costs Redis at most 50 calls a second and client.
	emptyFor = 20 * time.Millisecond

	takeWithin = 250 * time.Millisecond // a request waits no longer for its token
	awayFor    = time.Second            // then Redis is asked again
)

// kind says what a bucket belongs to. It stands in the name of its key.
type kind string

const (
	ofKey      kind = "key"
	ofAddress  kind = "address"
	ofFailures kind = "failures"
)

// subject is whose bucket it is.
type subject struct {
	kind kind
	addr netip.Addr
	id   string
}

func (s subject) redisKey() string {
	if s.id != "" {
		return "bellhop:limit:" + string(s.kind) + ":" + s.id
	}
	return "bellhop:limit:" + string(s.kind) + ":" + s.addr.String()
}

// quota is how fast a bucket fills and what it holds.
type quota struct {
	rate float64 // tokens a second
	size float64
}

func newQuota(rate float64, burst time.Duration) quota {
	return quota{rate: rate, size: max(1, math.Floor(rate*burst.Seconds()))}
}

func (q quota) unlimited() bool { return q.rate < 0 }

func (q quota) grow(tokens float64) time.Duration {
	return time.Duration(tokens / q.rate * float64(time.Second))
}

func (q quota) maxLease() int {
	return int(max(1, min(q.rate*leaseShare.Seconds(), q.size/4)))
}

// decision is whether a request may go on, and what to tell the client.
type decision struct {
	ok    bool
	quota quota
	left  int
	after time.Duration // until there is a token; 0 if ok
}

// writeTo tells a client how it stands, in the headers that are in common use (draft-ietf-httpapi-ratelimit-headers-07).
func (d decision) writeTo(h http.Header) {
	size := strconv.Itoa(int(d.quota.size))
	h["Ratelimit-Limit"] = []string{size}
	h["Ratelimit-Remaining"] = []string{strconv.Itoa(d.left)}
	h["Ratelimit-Reset"] = []string{seconds(d.quota.grow(d.quota.size - float64(d.left)))}
	h["Ratelimit-Policy"] = []string{size + ";w=" + seconds(d.quota.grow(d.quota.size))}
}

func seconds(d time.Duration) string { return strconv.Itoa(int(math.Ceil(d.Seconds()))) }

//go:embed take.lua
var takeSource string

var takeScript = redis.NewScript(takeSource)

// limiter holds the leases of this process.
type limiter struct {
	rdb    redis.UniversalClient
	log    *slog.Logger
	within time.Duration
	away   atomic.Int64 // Unix nanoseconds until when Redis is not asked; 0: it answers
	seed   maphash.Seed
	shards [16]shard
}

// Leases are kept for so many clients; one more, and the one that was quiet longest is forgotten: its tokens are lost to it.
const maxBuckets = 65_536

type shard struct {
	mu      sync.Mutex
	buckets map[subject]*list.Element // of *bucket
	recent  *list.List                // the longest quiet one in front
}

func newLimiter(rdb redis.UniversalClient, log *slog.Logger) *limiter {
	l := &limiter{rdb: rdb, log: log, within: takeWithin, seed: maphash.MakeSeed()}
	for i := range l.shards {
		l.shards[i] = shard{buckets: make(map[subject]*list.Element), recent: list.New()}
	}
	return l
}

// bucket is one client as this process knows it. Its lock is held during a call to Redis: the other requests of this client
// would need the answer anyway, and it is bounded by takeWithin.
type bucket struct {
	subject subject

	mu     sync.Mutex
	leased int // tokens that may be used
	lease  int // how many were asked for last
	since  time.Time
	left   int       // in Redis, when it was asked last
	empty  time.Time // no token before
	alone  time.Time // while Redis is away: when this process' own bucket is full again
}

// take lets a request of s pass, or tells when to come again.
func (l *limiter) take(ctx context.Context, s subject, q quota) decision {
	if q.unlimited() {
		return decision{ok: true, quota: q}
	}
	b := l.bucket(s)
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.leased > 0 && now.Sub(b.since) > leaseFor {
		b.leased = 0
	}
	if b.leased == 0 && now.Before(b.empty) {
		return decision{quota: q, after: b.empty.Sub(now)}
	}
	if b.leased == 0 {
		if !l.renew(ctx, b, q, now) {
			return b.takeAlone(q, now)
		}
		if b.leased == 0 {
			return decision{quota: q, after: b.empty.Sub(now)}
		}
	}
	b.leased--
	return decision{ok: true, quota: q, left: b.leased + b.left}
}

func (l *limiter) bucket(s subject) *bucket {
	sh := &l.shards[maphash.Comparable(l.seed, s)%uint64(len(l.shards))]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if e, ok := sh.buckets[s]; ok {
		sh.recent.MoveToBack(e)
		return e.Value.(*bucket) //nolint:forcetypeassert // nothing else is put in
	}
	if sh.recent.Len() >= maxBuckets/len(l.shards) {
		oldest := sh.recent.Remove(sh.recent.Front()).(*bucket) //nolint:forcetypeassert // nothing else is put in
		delete(sh.buckets, oldest.subject)
	}
	b := &bucket{subject: s}
	sh.buckets[s] = sh.recent.PushBack(b)
	return b
}

// renew asks Redis for the next lease. False: Redis is away.
func (l *limiter) renew(ctx context.Context, b *bucket, q quota, now time.Time) bool {
	if !l.mayAsk(now) {
		return false
	}
	switch busy := now.Sub(b.since) < busyWithin; {
	case busy:
		b.lease = min(2*b.lease, q.maxLease())
	case now.Sub(b.since) > leaseFor:
		b.lease = 1
	}
	b.lease = max(1, min(b.lease, q.maxLease()))

	// The lease is for all requests of this client: it does not end with the one that asks.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.within)
	defer cancel()
	each := strconv.FormatFloat(1e6/q.rate, 'f', -1, 64)
	answer, err := takeScript.Run(ctx, l.rdb, []string{b.subject.redisKey()}, each, int64(q.size), b.lease).Int64Slice()
	if err != nil || len(answer) != 3 {
		l.lost(ctx, err)
		return false
	}
	l.found(ctx)
	b.leased, b.left, b.since = int(answer[0]), int(answer[1]), now
	if b.leased < b.lease { // it is empty now
		b.empty = now.Add(max(emptyFor, time.Duration(answer[2])*time.Microsecond))
	}
	return true
}

// mayAsk lets everybody ask while Redis answers, and one request each awayFor while it does not.
func (l *limiter) mayAsk(now time.Time) bool {
	until := l.away.Load()
	if until == 0 {
		return true
	}
	return now.UnixNano() >= until && l.away.CompareAndSwap(until, now.Add(awayFor).UnixNano())
}

func (l *limiter) lost(ctx context.Context, err error) {
	if l.away.Swap(time.Now().Add(awayFor).UnixNano()) == 0 {
		l.log.WarnContext(ctx, "rate limits are counted by this process alone: Redis does not answer", "err", err)
	}
}

func (l *limiter) found(ctx context.Context) {
	if l.away.Load() != 0 && l.away.Swap(0) != 0 {
		l.log.InfoContext(ctx, "rate limits are the fleet's again: Redis answers")
	}
}

// takeAlone counts by this process' own clock.
func (b *bucket) takeAlone(q quota, now time.Time) decision {
	if b.alone.Before(now) {
		b.alone = now
	}
	full := b.alone.Add(q.grow(1))
	over := full.Sub(now) - q.grow(q.size)
	if over > 0 {
		return decision{quota: q, after: over}
	}
	b.alone = full
	return decision{ok: true, quota: q, left: int(-over.Seconds() * q.rate)}
}
