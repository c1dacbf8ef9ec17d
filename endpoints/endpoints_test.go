package endpoints_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/bellhop-dev/bellhop/endpoints"
	"github.com/bellhop-dev/bellhop/internal/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a client and one endpoint.
type bench struct {
	*testing.T
	rdb  redis.UniversalClient
	c    *endpoints.Client
	call endpoints.Call
}

func setup(t *testing.T, rdb redis.UniversalClient, cfg endpoints.Config) *bench {
	t.Helper()
	c, err := endpoints.New(rdb, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &bench{T: t, rdb: rdb, c: c, call: endpoints.Call{Endpoint: "shop", Label: "https://shop.example", Lease: time.Minute}}
}

func (b *bench) enter() endpoints.Pass {
	b.Helper()
	pass, err := b.c.Enter(b.Context(), b.call)
	if err != nil {
		b.Fatal(err)
	}
	return pass
}

func (b *bench) wantGo() endpoints.Pass {
	b.Helper()
	pass := b.enter()
	if pass.Token == "" {
		b.Fatalf("got %+v, want leave", pass)
	}
	return pass
}

func (b *bench) wantWait(why string) endpoints.Pass {
	b.Helper()
	pass := b.enter()
	if pass.Token != "" || pass.Why != why || pass.Wait <= 0 {
		b.Fatalf("got %+v, want to wait for %q", pass, why)
	}
	return pass
}

func (b *bench) leave(pass endpoints.Pass, r endpoints.Report) endpoints.Change {
	b.Helper()
	change, err := b.c.Leave(b.Context(), b.call.Endpoint, pass.Token, r)
	if err != nil {
		b.Fatal(err)
	}
	return change
}

func (b *bench) end(pass endpoints.Pass, outcome endpoints.Outcome) endpoints.Change {
	b.Helper()
	return b.leave(pass, endpoints.Report{Outcome: outcome})
}

func (b *bench) state() endpoints.State {
	b.Helper()
	s, err := b.c.State(b.Context(), b.call.Endpoint)
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// awaitGo asks until there is leave, each time after a part of the wait.
func (b *bench) awaitGo() endpoints.Pass {
	b.Helper()
	for end := time.Now().Add(20 * time.Second); ; {
		pass := b.enter()
		if pass.Token != "" {
			return pass
		}
		if time.Now().After(end) {
			b.Fatalf("no leave within 20s: %+v", pass)
		}
		<-time.After(min(pass.Wait, 10*time.Millisecond))
	}
}

// An endpoint gets as many calls at once as it has deserved: two that nobody knows, one more for each success, half after a failure.
func TestWindow(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb, endpoints.Config{Failures: 100})
		first, second := b.wantGo(), b.wantGo()
		if pass := b.wantWait("busy"); pass.Wait > 5*time.Second {
			t.Errorf("told to wait for %v beside a call that has just begun", pass.Wait)
		}
		b.end(first, endpoints.Delivered)
		b.end(second, endpoints.Delivered)
		var running []endpoints.Pass
		for range 4 {
			running = append(running, b.wantGo())
		}
		b.wantWait("busy")
		if got := b.state(); got.Running != 4 || got.Delivered != 2 || got.Status != endpoints.StatusClosed || got.Label != "https://shop.example" {
			t.Errorf("state %+v", got)
		}
		for _, pass := range running {
			b.end(pass, endpoints.Failed)
		}
		last := b.wantGo() // 4, 2, 1, 1
		b.wantWait("busy")
		b.end(last, endpoints.Abandoned)
		if got := b.state(); got.Failures != 4 || got.Failed != 4 || got.Running != 0 || got.DeliveredAt.IsZero() || got.FailedAt.Before(got.DeliveredAt) {
			t.Errorf("state %+v", got)
		}
	})
}

func TestCircuit(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb, endpoints.Config{Failures: 3, Cooldown: time.Second, MaxCooldown: 2500 * time.Millisecond})
		for range 6 { // room for several
			b.end(b.wantGo(), endpoints.Delivered)
		}
		late := b.wantGo()
		for i := range 3 {
			change := b.end(b.wantGo(), endpoints.Failed)
			if want := (endpoints.Change{What: "opened", For: time.Second}); i == 2 && change != want {
				t.Errorf("failure %d changed %+v", i, change)
			} else if i < 2 && change.What != "" {
				t.Errorf("failure %d changed %+v", i, change)
			}
		}
		b.wantWait("open")
		if got := b.state(); got.Status != endpoints.StatusOpen || got.NextProbe.IsZero() {
			t.Errorf("state %+v", got)
		}
		// A call that began before says nothing new.
		if change := b.end(late, endpoints.Failed); change.What != "" {
			t.Errorf("a late failure changed %+v", change)
		}
		for _, rest := range []time.Duration{2 * time.Second, 2500 * time.Millisecond} {
			probe := b.awaitGo()
			if !probe.Probe {
				t.Fatalf("got %+v, want a probe", probe)
			}
			b.wantWait("busy")
			if got := b.state(); got.Status != endpoints.StatusProbing {
				t.Errorf("state %+v", got)
			}
			if got := b.end(probe, endpoints.Failed); got != (endpoints.Change{What: "opened", For: rest}) {
				t.Errorf("a failed probe changed %+v, want a rest of %v", got, rest)
			}
		}
		if got := b.end(b.awaitGo(), endpoints.Delivered); got.What != "closed" {
			t.Errorf("a good probe changed %+v", got)
		}
		if pass := b.wantGo(); pass.Probe {
			t.Error("a call of a closed circuit probes")
		}
		if got := b.state(); got.Status != endpoints.StatusClosed || got.Failures != 0 {
			t.Errorf("state %+v", got)
		}
	})
}

// Of a hundred workers that ask at once, one probes.
func TestOneProbe(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb, endpoints.Config{Failures: 1, Cooldown: time.Millisecond})
		b.end(b.wantGo(), endpoints.Failed)
		b.end(b.awaitGo(), endpoints.Abandoned) // by now it may be probed
		var probes atomic.Int32
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				pass, err := b.c.Enter(t.Context(), b.call)
				if err != nil {
					t.Error(err)
				} else if pass.Token != "" {
					probes.Add(1)
				}
			})
		}
		all.Wait()
		if n := probes.Load(); n != 1 {
			t.Errorf("%d calls went to a dead endpoint, want 1", n)
		}
	})
}

// A worker that dies in a call doesn't hold its place for longer than the lease.
func TestLeaseEnds(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb, endpoints.Config{Failures: 1, Cooldown: time.Millisecond})
		b.end(b.wantGo(), endpoints.Failed)
		b.call.Lease = 50 * time.Millisecond
		lost := b.awaitGo()
		next := b.awaitGo()
		if !next.Probe {
			t.Errorf("got %+v, want a probe", next)
		}
		if change := b.end(lost, endpoints.Failed); change.What != "" {
			t.Errorf("a call whose lease is over changed %+v", change)
		}
		if got := b.state(); got.Running > 1 || got.Failed != 1 {
			t.Errorf("state %+v", got)
		}
	})
}

func TestLeaveCountsOnce(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb, endpoints.Config{})
		pass := b.wantGo()
		for range 3 { // as after a lost answer
			b.leave(pass, endpoints.Report{Outcome: endpoints.Failed, Attempt: &endpoints.Attempt{Job: "j"}})
		}
		attempts, err := b.c.Attempts(t.Context(), "shop", 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := b.state(); got.Failures != 1 || got.Failed != 1 || len(attempts) != 1 {
			t.Errorf("state %+v, %d attempts", got, len(attempts))
		}
	})
}

func TestPause(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb, endpoints.Config{})
		b.leave(b.wantGo(), endpoints.Report{Outcome: endpoints.Failed, Pause: 48 * time.Hour})
		if pass := b.wantWait("paused"); pass.Wait < 59*time.Minute || pass.Wait > 76*time.Minute {
			t.Errorf("told to wait for %v, want about the hour that counts", pass.Wait)
		}
		if got := b.state(); got.PausedUntil.IsZero() {
			t.Errorf("state %+v", got)
		}
	})
}

// However many ask, no more than the rate go; and those that wait stand in a line.
func TestRate(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb, endpoints.Config{})
		b.call.Rate = 0.5
		b.end(b.wantGo(), endpoints.Delivered)
		for i := range 20 {
			pass := b.wantWait("rate")
			if least, most := time.Duration(2*i)*time.Second, time.Duration(2*i+4)*time.Second; pass.Wait < least || pass.Wait > most {
				t.Errorf("number %d in the line waits %v, want %v to %v", i, pass.Wait, least, most)
			}
		}
		b.call.Endpoint, b.call.Rate = "fast", 3
		begin := time.Now()
		for range 3 { // as many as a second has
			b.end(b.wantGo(), endpoints.Delivered)
		}
		for range 3 {
			b.end(b.awaitGo(), endpoints.Delivered)
		}
		if took := time.Since(begin); took < 900*time.Millisecond {
			t.Errorf("six calls within %v, at three a second", took)
		}
	})
}

func TestSwitch(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb, endpoints.Config{KeepFor: time.Minute})
		if changed, err := b.c.Enable(t.Context(), "shop"); err != nil || changed {
			t.Errorf("enable what is on: %v, %v", changed, err)
		}
		other := b.wantGo()
		if got := b.leave(b.wantGo(), endpoints.Report{Outcome: endpoints.Gone, Reason: "it answered 410"}); got.What != "disabled" {
			t.Errorf("410 changed %+v", got)
		}
		if pass := b.enter(); pass.Token != "" || pass.Disabled != "it answered 410" {
			t.Errorf("got %+v", pass)
		}
		b.end(other, endpoints.Delivered) // a call that was on its way doesn't switch it on
		if got := b.state(); got.Status != endpoints.StatusDisabled || got.Reason != "it answered 410" || got.Since.IsZero() {
			t.Errorf("state %+v", got)
		}
		if ttl := rdb.TTL(t.Context(), "bellhop:{endpoints}:state:shop").Val(); ttl > 0 {
			t.Errorf("what is switched off is forgotten in %v", ttl)
		}
		if changed, err := b.c.Enable(t.Context(), "shop"); err != nil || !changed {
			t.Errorf("enable: %v, %v", changed, err)
		}
		if ttl := rdb.TTL(t.Context(), "bellhop:{endpoints}:state:shop").Val(); ttl <= 0 || ttl > time.Minute {
			t.Errorf("what is switched on is kept for %v", ttl)
		}
		b.end(b.wantGo(), endpoints.Delivered)
		if changed, err := b.c.Disable(t.Context(), "shop", "maintenance"); err != nil || !changed {
			t.Errorf("disable: %v, %v", changed, err)
		}
		if pass := b.enter(); pass.Disabled != "maintenance" {
			t.Errorf("got %+v", pass)
		}
		if _, err := b.c.Disable(t.Context(), "shop", " "); err == nil {
			t.Error("disabled without a reason")
		}
		b.call.Endpoint = "url:abc"
		b.wantGo()
		list, err := b.c.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, s := range list {
			names = append(names, s.Endpoint+" "+s.Status)
		}
		if diff := cmp.Diff([]string{"url:abc closed", "shop disabled"}, names); diff != "" {
			t.Errorf("list (-want +got):\n%s", diff)
		}
	})
}

func TestPages(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb, endpoints.Config{})
		if b.state().Known {
			t.Error("an endpoint is known that nobody has called")
		}
		const all = 450 // more than are read at once
		for i := range all {
			b.call.Endpoint = fmt.Sprintf("e%03d", (i*7)%all)
			b.end(b.wantGo(), endpoints.Delivered)
		}
		for _, name := range []string{"e003", "e400"} {
			if _, err := b.c.Disable(t.Context(), name, "test"); err != nil {
				t.Fatal(err)
			}
		}
		rdb.Del(t.Context(), "bellhop:{endpoints}:state:e001") // forgotten, though the index still has it
		walk := func(status string, most int) (names []string, pages int) {
			t.Helper()
			after := ""
			for more := true; more; pages++ {
				page, others, err := b.c.Page(t.Context(), after, status, most)
				if err != nil || len(page) > most {
					t.Fatalf("%d endpoints, %v", len(page), err)
				}
				for _, s := range page {
					if !s.Known || s.DeliveredAt.IsZero() || !s.FailedAt.IsZero() {
						t.Errorf("state %+v", s)
					}
					names = append(names, s.Endpoint)
				}
				if more = others; more {
					after = page[len(page)-1].Endpoint
				}
			}
			return names, pages
		}
		var want []string
		for i := range all {
			if i != 1 {
				want = append(want, fmt.Sprintf("e%03d", i))
			}
		}
		got, pages := walk("", 100)
		if diff := cmp.Diff(want, got); diff != "" || pages != 5 {
			t.Errorf("%d pages (-want +got):\n%s", pages, diff)
		}
		got, pages = walk(endpoints.StatusDisabled, 1)
		if diff := cmp.Diff([]string{"e003", "e400"}, got); diff != "" || pages != 2 {
			t.Errorf("%d pages (-want +got):\n%s", pages, diff)
		}
	})
}

func TestAttemptsAreBounded(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb, endpoints.Config{KeepAttempts: 3, KeepFor: time.Hour})
		at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		var want []endpoints.Attempt
		for i := range 5 {
			a := endpoints.Attempt{Job: fmt.Sprint(i), Queue: "q", Message: "m", Number: i + 1, At: at, DurationMS: 7, Status: 500, Answer: "oops"}
			b.leave(b.wantGo(), endpoints.Report{Outcome: endpoints.Delivered, Attempt: &a})
			want = append([]endpoints.Attempt{a}, want...)
		}
		got, err := b.c.Attempts(t.Context(), "shop", 0)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want[:3], got); diff != "" {
			t.Errorf("attempts (-want +got):\n%s", diff)
		}
		if got, err = b.c.Attempts(t.Context(), "shop", 1); err != nil || len(got) != 1 || got[0].Job != "4" {
			t.Errorf("the last attempt: %+v, %v", got, err)
		}
		for _, key := range []string{"state:shop", "calls:shop", "attempts:shop"} {
			if n := rdb.Exists(t.Context(), "bellhop:{endpoints}:"+key).Val(); n == 0 {
				continue // an empty zset is none
			}
			if ttl := rdb.TTL(t.Context(), "bellhop:{endpoints}:"+key).Val(); ttl <= 0 || ttl > time.Hour {
				t.Errorf("%s is kept for %v", key, ttl)
			}
		}
	})
}

func TestNamesAreChecked(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.Embedded(t), endpoints.Config{})
	for _, name := range []string{"", "a}b", "{x}", "a b", "a\nb", "*", "ä", strings.Repeat("a", 129)} {
		_, enter := b.c.Enter(t.Context(), endpoints.Call{Endpoint: name})
		_, leave := b.c.Leave(t.Context(), name, "x", endpoints.Report{Outcome: endpoints.Failed})
		_, state := b.c.State(t.Context(), name)
		_, attempts := b.c.Attempts(t.Context(), name, 1)
		_, off := b.c.Disable(t.Context(), name, "r")
		for _, err := range []error{enter, leave, state, attempts, off} {
			if err == nil || !strings.Contains(err.Error(), "a name has letters") {
				t.Errorf("%q: %v", name, err)
			}
		}
	}
}

// Jobs must drain from a full Redis: what they need to write is written.
func TestFullRedis(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t, redistest.WithConfig("maxmemory", "1")).Client()
	b := setup(t, rdb, endpoints.Config{Failures: 1})
	if err := rdb.Set(t.Context(), "x", "y", 0).Err(); err == nil {
		t.Fatal("the Redis is not full")
	}
	if got := b.end(b.wantGo(), endpoints.Failed); got.What != "opened" {
		t.Errorf("a failure changed %+v", got)
	}
}

func TestCluster(t *testing.T) {
	t.Parallel()
	b := setup(t, redistest.Cluster(t).Client(), endpoints.Config{Failures: 1})
	b.leave(b.wantGo(), endpoints.Report{Outcome: endpoints.Failed, Attempt: &endpoints.Attempt{Job: "j"}})
	b.wantWait("open")
	if list, err := b.c.List(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("list %+v, %v", list, err)
	}
}

func TestRedisAway(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	b := setup(t, s.Client(), endpoints.Config{})
	s.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := b.c.Enter(ctx, b.call); err == nil || !strings.Contains(err.Error(), "endpoint shop") {
		t.Errorf("got %v", err)
	}
}

func TestConfigReportsEveryFault(t *testing.T) {
	t.Parallel()
	err := endpoints.Config{Failures: -1, Cooldown: -1, MaxCooldown: -2, MaxCalls: -1, KeepAttempts: 1001, KeepFor: time.Second}.Validate()
	if err == nil {
		t.Fatal("no fault found")
	}
	for i, line := range strings.Split(err.Error(), "\n") {
		if key := []string{"failures:", "cooldown:", "max_cooldown:", "max_calls:", "keep_attempts:", "keep_for:"}[i]; !strings.HasPrefix(line, key) {
			t.Errorf("fault %d is %q, want %s", i, line, key)
		}
	}
	if err := (endpoints.Config{Cooldown: time.Hour}).Validate(); err != nil {
		t.Error(err)
	}
}
