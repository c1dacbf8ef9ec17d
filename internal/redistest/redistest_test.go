package redistest_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNewIsAServerOfItsOwn(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	one, two := redistest.New(t), redistest.New(t)
	if err := one.Set(ctx, "k", "one", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if n := two.Exists(ctx, "k").Val(); n != 0 {
		t.Error("the second server sees the first one's key")
	}
	if got := one.ConfigGet(ctx, "maxmemory-policy").Val()["maxmemory-policy"]; got != "noeviction" {
		t.Errorf("maxmemory-policy is %q", got)
	}
}

func TestEachServesBoth(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		if got, err := rdb.Eval(t.Context(), "return redis.call('INCR', KEYS[1])", []string{"{a}n"}).Int(); err != nil || got != 1 {
			t.Fatalf("got %d, %v", got, err)
		}
	})
}

func TestKillAndRestartKeepsPortAndAOF(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := redistest.Start(t, redistest.WithAOF())
	addr := s.Addr()
	if err := s.Client().Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	if err := s.Client().Ping(ctx).Err(); err == nil {
		t.Fatal("a killed server answers")
	}
	s.Restart()
	if s.Addr() != addr {
		t.Errorf("moved from %s to %s", addr, s.Addr())
	}
	if got := s.Client().Get(ctx, "k").Val(); got != "v" {
		t.Errorf("got %q after the restart", got)
	}
}

func TestPauseAnswersNothingUntilResume(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	if err := s.Client().Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	s.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Client().Ping(ctx).Err(); err == nil {
		t.Error("a paused server answers")
	}
	s.Resume()
	if err := s.Client().Ping(t.Context()).Err(); err != nil {
		t.Error(err)
	}
}

func TestUserPasswordAndTLS(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]redistest.Option{
		"password":    {redistest.WithPassword(`p"w d`)},
		"user":        {redistest.WithUser("ada", "se/cret", "~bellhop:*", "+@all")},
		"tls":         {redistest.WithTLS()},
		"mutual tls":  {redistest.WithMutualTLS(), redistest.WithPassword("x")},
		"with config": {redistest.WithConfig("maxmemory", "10mb"), redistest.WithConfig("save", "")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t, opts...)
			if err := s.Client().Set(t.Context(), "bellhop:k", "v", 0).Err(); err != nil {
				t.Fatal(err)
			}
			if err := s.Admin().FlushAll(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
