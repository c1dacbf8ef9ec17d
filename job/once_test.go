package job_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/job"
)

func newOnce(t *testing.T, rdb redis.UniversalClient, cfg job.OnceConfig) *job.Once {
	t.Helper()
	once, err := job.NewOnce(rdb, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return once
}

// dial opens a client of its own to the same server.
func dial(t *testing.T, rdb redis.UniversalClient) *redis.Client {
	t.Helper()
	other := redis.NewClient(&redis.Options{Addr: rdb.(*redis.Client).Options().Addr})
	t.Cleanup(func() { _ = other.Close() })
	return other
}

// counter is an effect that counts, and remembers the fences that it ran with.
type counter struct {
	mu     sync.Mutex
	fences []int64
}

func (c *counter) run(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fences = append(c.fences, job.OnceFence(ctx))
	return nil
}

func (c *counter) want(t *testing.T, fences ...int64) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if diff := cmp.Diff(fences, c.fences); diff != "" {
		t.Errorf("the effect ran otherwise (-want +got):\n%s", diff)
	}
}

func TestOnceRunsAnEffectOnce(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		var effect counter
		for range 3 { // guards of three processes
			if err := newOnce(t, rdb, job.OnceConfig{}).Do(t.Context(), "charge:1", effect.run); err != nil {
				t.Fatal(err)
			}
		}
		effect.want(t, 1)
		if err := newOnce(t, rdb, job.OnceConfig{}).Do(t.Context(), "charge:2", effect.run); err != nil {
			t.Fatal(err)
		}
		effect.want(t, 1, 1)
	})
}

func TestOnceForgetsAfterKeep(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	once := newOnce(t, rdb, job.OnceConfig{Keep: 90 * time.Minute})
	if err := once.Do(t.Context(), "k", func(context.Context) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if ttl := rdb.PTTL(t.Context(), "bellhop:once:k").Val(); ttl > 90*time.Minute || ttl < 89*time.Minute {
		t.Errorf("the key is kept for %v", ttl)
	}
}

func TestOnceASecondRunIsPutOffWhileTheFirstGoesOn(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		const lease = 300 * time.Millisecond
		once := newOnce(t, rdb, job.OnceConfig{Lease: lease})
		var effect counter
		began, finish, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		go func() {
			ended <- once.Do(t.Context(), "k", func(ctx context.Context) error {
				close(began)
				<-finish
				return effect.run(ctx)
			})
		}()
		<-began
		// For several leases: the holder renews its own.
		for since := time.Now(); time.Since(since) < 4*lease; {
			err := once.Do(t.Context(), "k", effect.run)
			var snooze *job.SnoozeError
			if !errors.Is(err, job.ErrOnceBusy) || !errors.As(err, &snooze) {
				t.Fatalf("the second run got %v", err)
			}
			if snooze.For <= 0 || snooze.For > lease+time.Millisecond {
				t.Errorf("it is put off for %v", snooze.For)
			}
		}
		close(finish)
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if err := once.Do(t.Context(), "k", effect.run); err != nil {
			t.Fatal(err)
		}
		effect.want(t, 1)
	})
}

func TestOnceManyAtOnce(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		once := newOnce(t, rdb, job.OnceConfig{})
		var effect counter
		var busy atomic.Int32
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				switch err := once.Do(t.Context(), "k", effect.run); {
				case errors.Is(err, job.ErrOnceBusy):
					busy.Add(1)
				case err != nil:
					t.Error(err)
				}
			})
		}
		all.Wait()
		effect.want(t, 1)
		if busy.Load() == 20 {
			t.Error("nobody ran it")
		}
	})
}

func TestOnceAFailedEffectRunsAgainAtOnce(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		once := newOnce(t, rdb, job.OnceConfig{Lease: time.Hour, Keep: time.Hour})
		declined := errors.New("card declined")
		if err := once.Do(t.Context(), "k", func(context.Context) error { return declined }); !errors.Is(err, declined) {
			t.Fatalf("got %v", err)
		}
		if err := once.Do(t.Context(), "k", func(context.Context) error { return job.Discard("no such card") }); !job.IsDiscard(err) {
			t.Fatalf("got %v", err)
		}
		func() {
			defer func() {
				if recover() != "boom" {
					t.Error("the panic did not go on")
				}
			}()
			_ = once.Do(t.Context(), "k", func(context.Context) error { panic("boom") })
		}()
		ctx, cancel := context.WithCancel(t.Context())
		if err := once.Do(ctx, "k", func(ctx context.Context) error { cancel(); return ctx.Err() }); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
		var effect counter
		if err := once.Do(t.Context(), "k", effect.run); err != nil {
			t.Fatal(err)
		}
		effect.want(t, 5)
	})
}

func TestOnceKeepsAnEffectWhoseCallerIsGone(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		once := newOnce(t, rdb, job.OnceConfig{})
		var effect counter
		ctx, cancel := context.WithCancel(t.Context())
		if err := once.Do(ctx, "k", func(ctx context.Context) error { cancel(); return effect.run(ctx) }); err != nil {
			t.Fatal(err)
		}
		if err := once.Do(t.Context(), "k", effect.run); err != nil {
			t.Fatal(err)
		}
		effect.want(t, 1)
	})
}

// The holder's way to Redis ends while its effect goes on: its lease ends, its effect is told, another run takes over.
func TestOnceAHolderWithoutRedisLosesItsKey(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		cfg := job.OnceConfig{Lease: 200 * time.Millisecond}
		line := dial(t, rdb)
		var effect counter
		err := newOnce(t, line, cfg).Do(t.Context(), "k", func(ctx context.Context) error {
			_ = line.Close()
			<-ctx.Done() // the test's own end, if it is not told
			if !errors.Is(context.Cause(ctx), job.ErrOnceLost) {
				t.Errorf("the effect's context ended with %v", context.Cause(ctx))
			}
			takeOver(t, newOnce(t, rdb, cfg), effect.run)
			return ctx.Err()
		})
		if !errors.Is(err, job.ErrOnceLost) || !errors.Is(err, context.Canceled) {
			t.Errorf("the first run got %v", err)
		}
		effect.want(t, 2)
	})
}

// takeOver tries until the key is free.
func takeOver(t *testing.T, once *job.Once, effect func(context.Context) error) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		err := once.Do(t.Context(), "k", effect)
		if err == nil {
			return
		}
		var snooze *job.SnoozeError
		if !errors.As(err, &snooze) || time.Now().After(deadline) {
			t.Fatalf("the key was not taken over: %v", err)
		}
		<-time.After(snooze.For) // as a worker does
	}
}

// An effect that takes place after its key was lost is kept, and the run that has the key by then is told to stop.
func TestOnceALateEffectIsKept(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		once := newOnce(t, rdb, job.OnceConfig{Lease: 300 * time.Millisecond})
		var effect counter
		told := make(chan error, 1)
		err := once.Do(ctx, "k", func(context.Context) error {
			// What the end of its lease looks like to others, if the process stood still.
			if err := rdb.HSet(ctx, "bellhop:once:k", "until", 0).Err(); err != nil {
				t.Fatal(err)
			}
			second := make(chan struct{})
			go func() {
				told <- once.Do(ctx, "k", func(ctx context.Context) error {
					close(second)
					<-ctx.Done()
					return context.Cause(ctx)
				})
			}()
			<-second
			return nil
		})
		if !errors.Is(err, job.ErrOnceLost) {
			t.Errorf("the first run got %v", err)
		}
		if err := <-told; !errors.Is(err, job.ErrOnceLost) {
			t.Errorf("the second run got %v", err)
		}
		if err := once.Do(ctx, "k", effect.run); err != nil {
			t.Fatal(err)
		}
		effect.want(t)
	})
}

// twice sends each command a second time, as go-redis does when an answer is lost.
type twice struct{}

func (twice) DialHook(next redis.DialHook) redis.DialHook { return next }
func (twice) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (twice) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if err := next(ctx, cmd); err != nil {
			return err
		}
		return next(ctx, cmd)
	}
}

func TestOnceResentRequestsGetTheirAnswer(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		line := dial(t, rdb)
		line.AddHook(twice{})
		once := newOnce(t, line, job.OnceConfig{})
		var effect counter
		failed := errors.New("failed")
		if err := once.Do(t.Context(), "k", func(context.Context) error { return failed }); !errors.Is(err, failed) {
			t.Fatal(err)
		}
		for range 2 {
			if err := once.Do(t.Context(), "k", effect.run); err != nil {
				t.Fatal(err)
			}
		}
		effect.want(t, 2)
	})
}

func TestOnceValueIsKept(t *testing.T) {
	t.Parallel()
	type receipt struct{ ID string }
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, once := t.Context(), newOnce(t, rdb, job.OnceConfig{})
		runs := 0
		for range 2 {
			got, err := job.OnceValue(ctx, once, "charge", func(context.Context) (receipt, error) { runs++; return receipt{"ch_1"}, nil })
			if err != nil || got.ID != "ch_1" {
				t.Errorf("got %+v, %v", got, err)
			}
			raw, err := job.OnceValue(ctx, once, "raw", func(context.Context) ([]byte, error) { runs++; return []byte("\x00\xff"), nil })
			if err != nil || string(raw) != "\x00\xff" {
				t.Errorf("got %q, %v", raw, err)
			}
			empty, err := job.OnceValue(ctx, once, "empty", func(context.Context) (json.RawMessage, error) { runs++; return nil, nil })
			if err != nil || len(empty) != 0 {
				t.Errorf("got %q, %v", empty, err)
			}
		}
		if runs != 3 {
			t.Errorf("the effects ran %d times", runs)
		}
		if err := once.Do(ctx, "charge", func(context.Context) error { t.Error("ran again"); return nil }); err != nil {
			t.Error(err)
		}
		if _, err := job.OnceValue(ctx, once, "charge", func(context.Context) (int, error) { return 1, nil }); err == nil {
			t.Error("a receipt was taken for an int")
		}
	})
}

func TestOnceAValueThatCannotBeKeptIsTold(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, once := t.Context(), newOnce(t, rdb, job.OnceConfig{})
		large := strings.Repeat("x", job.MaxResultBytes)
		got, err := job.OnceValue(ctx, once, "k", func(context.Context) (string, error) { return large, nil })
		if err == nil || got != large {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
		if _, err := job.OnceValue(ctx, once, "k", func(context.Context) (string, error) { t.Error("ran again"); return "", nil }); err == nil {
			t.Error("a value came from nowhere")
		}
		if _, err := job.OnceValue(ctx, once, "f", func(context.Context) (func(), error) { return func() {}, nil }); err == nil {
			t.Error("a function was kept")
		}
	})
}

// A full Redis takes the word of what has taken place.
func TestOnceOnAFullRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	once := newOnce(t, server.Client(), job.OnceConfig{})
	if err := server.Admin().ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if err := server.Client().Set(t.Context(), "bellhop:x", 1, 0).Err(); err == nil {
		t.Fatal("Redis is not full")
	}
	var effect counter
	for range 2 {
		if err := once.Do(t.Context(), "k", effect.run); err != nil {
			t.Fatal(err)
		}
	}
	effect.want(t, 1)
}

// Redis is away when the effect has taken place: the word is told once it is back.
func TestOnceRedisAwayAtTheEnd(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.WithAOF(), redistest.WithConfig("appendfsync", "always"))
	once := newOnce(t, server.Client(), job.OnceConfig{Lease: 30 * time.Second})
	var effect counter
	back := make(chan struct{})
	err := once.Do(t.Context(), "k", func(ctx context.Context) error {
		server.Kill()
		time.AfterFunc(300*time.Millisecond, func() { defer close(back); server.Restart() })
		return effect.run(ctx)
	})
	<-back
	if err != nil {
		t.Fatal(err)
	}
	if err := once.Do(t.Context(), "k", effect.run); err != nil {
		t.Fatal(err)
	}
	effect.want(t, 1)
}

func TestOnceInACluster(t *testing.T) {
	t.Parallel()
	once := newOnce(t, redistest.Cluster(t).Client(), job.OnceConfig{})
	var effect counter
	for range 2 {
		for _, key := range []string{"a", "b", "c", "{d}", "}{", "é:*"} {
			if err := once.Do(t.Context(), key, effect.run); err != nil {
				t.Fatal(err)
			}
		}
	}
	effect.want(t, 1, 1, 1, 1, 1, 1)
}

func TestOnceRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	rdb := redistest.Embedded(t)
	for _, cfg := range []job.OnceConfig{{Lease: time.Millisecond}, {Lease: -1}, {Lease: time.Hour, Keep: time.Minute}, {Keep: -1}} {
		if _, err := job.NewOnce(rdb, cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
	once := newOnce(t, rdb, job.OnceConfig{})
	for _, key := range []string{"", " ", "a\nb", "\xff", strings.Repeat("k", 1025)} {
		if err := once.Do(t.Context(), key, func(context.Context) error { t.Error("ran"); return nil }); err == nil {
			t.Errorf("the key %q was taken", key)
		}
	}
}

func TestIdempotencyKeyIsTheJobs(t *testing.T) {
	t.Parallel()
	if key, err := job.IdempotencyKey(t.Context()); err == nil {
		t.Errorf("got %q outside of a handler", key)
	}
	seen := make(map[string]string)
	for _, c := range []struct {
		queue, id string
		effects   []string
		want      string
	}{
		{"mail", "42", nil, "mail:42"},
		{"mail", "42", []string{"charge"}, "mail:42:charge"},
		{"mail:42", "charge", nil, "mail%3A42:charge"},
		{"mail", "42:charge", nil, "mail:42%3Acharge"},
		{"mail", "42", []string{"charge:a b"}, "mail:42:charge%3Aa+b"},
		{"mail", "42", []string{"charge", "a+b"}, "mail:42:charge:a%2Bb"},
	} {
		for attempt := 1; attempt <= 2; attempt++ {
			ctx := job.NewContext(t.Context(), &job.Job{Queue: c.queue, ID: c.id, Attempt: attempt})
			key, err := job.IdempotencyKey(ctx, c.effects...)
			if err != nil || key != c.want {
				t.Errorf("%+v: got %q, %v", c, key, err)
			}
		}
		if other, ok := seen[c.want]; ok {
			t.Errorf("%+v shares its key with %s", c, other)
		}
		seen[c.want] = fmt.Sprintf("%+v", c)
	}
}
