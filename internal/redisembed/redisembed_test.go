package redisembed_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/bellhop-dev/bellhop/internal/redisembed"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, opts redisembed.Options) (*redisembed.Instance, *redis.Client) {
	t.Helper()
	in, err := redisembed.Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close() })
	parsed, err := redis.ParseURL(in.URL())
	if err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(parsed)
	t.Cleanup(func() { _ = rdb.Close() })
	return in, rdb
}

func TestBothKindsServeUntilClosed(t *testing.T) {
	t.Parallel()
	for kind, opts := range map[string]redisembed.Options{
		"-server ":   {Addr: "127.0.0.1:0", ServerOnly: true},
		"in-process": {Addr: "127.0.0.1:0", InProcess: true},
	} {
		in, rdb := start(t, opts)
		if !strings.Contains(in.Kind(), kind) {
			t.Errorf("kind %q, want %q", in.Kind(), kind)
		}
		if err := rdb.Set(t.Context(), "k", "v", 0).Err(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := in.Close(); err != nil {
				t.Error(err)
			}
		}
		if conn, err := net.Dial("tcp", in.Addr()); err == nil {
			_ = conn.Close()
			t.Errorf("%s listens after Close", in.Kind())
		}
	}
}

func TestATakenPortLeadsToAFreeOne(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, inProcess := range []bool{false, true} {
		in, rdb := start(t, redisembed.Options{Addr: taken.Addr().String(), InProcess: inProcess})
		if in.Addr() == taken.Addr().String() {
			t.Errorf("%s took a taken port", in.Kind())
		}
		if err := rdb.Ping(t.Context()).Err(); err != nil {
			t.Error(err)
		}
	}
}

func TestInProcessTTLsRunInRealTime(t *testing.T) {
	t.Parallel()
	_, rdb := start(t, redisembed.Options{Addr: "127.0.0.1:0", InProcess: true})
	begin := time.Now()
	if err := rdb.Set(t.Context(), "k", "v", 100*time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for rdb.Exists(ctx, "k").Val() == 1 {
	}
	if ctx.Err() != nil {
		t.Fatal("the key never expires")
	}
	if lived := time.Since(begin); lived < 100*time.Millisecond {
		t.Errorf("expired early, after %s", lived)
	}
}

func TestStartRefusesNonsense(t *testing.T) {
	t.Parallel()
	for want, opts := range map[string]redisembed.Options{
		"exclude each other":  {ServerOnly: true, InProcess: true},
		"write host:port":     {Addr: "localhost"},
		"not a number from 0": {Addr: "localhost:http"},
	} {
		if _, err := redisembed.Start(t.Context(), opts); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}
