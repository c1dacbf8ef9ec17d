package redisconn_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/bellhop-dev/bellhop/internal/redisconn"
	"github.com/bellhop-dev/bellhop/internal/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// check opens cfg and checks it.
func check(t *testing.T, cfg redisconn.Config) (redisconn.Report, string, error) {
	t.Helper()
	rdb, err := redisconn.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	return checkClient(t, rdb, cfg)
}

func checkClient(t *testing.T, rdb redis.UniversalClient, cfg redisconn.Config) (redisconn.Report, string, error) {
	t.Helper()
	var log buffer
	report, err := redisconn.Check(t.Context(), rdb, cfg, slog.New(slog.NewTextHandler(&log, nil)))
	for _, text := range []string{fmt.Sprint(err), log.String(), fmt.Sprintf("%v %+v %#v", cfg, cfg, cfg)} {
		if strings.Contains(text, "hunter2") {
			t.Errorf("tells the password: %s", text)
		}
	}
	return report, log.String(), err
}

func TestEveryModeIsFoundSound(t *testing.T) {
	t.Parallel()
	aof := redistest.WithAOF()
	password := redistest.WithPassword("hunter2 @/?#%")
	for name, start := range map[string]func(t *testing.T) (redisconn.Config, redisconn.Report){
		"standalone": func(t *testing.T) (redisconn.Config, redisconn.Report) {
			return redisconn.Config{URL: redistest.Start(t, aof, password).URL()}, redisconn.Report{Mode: "standalone", Masters: 1}
		},
		"socket": func(t *testing.T) (redisconn.Config, redisconn.Report) {
			return redisconn.Config{URL: "unix://" + redistest.Start(t, aof).Socket()}, redisconn.Report{Mode: "standalone", Masters: 1}
		},
		"tls": func(t *testing.T) (redisconn.Config, redisconn.Report) {
			s := redistest.Start(t, aof, redistest.WithTLS())
			return redisconn.Config{URL: s.URL(), CAFile: s.TLS().CA}, redisconn.Report{Mode: "standalone", Masters: 1}
		},
		"mutual tls": func(t *testing.T) (redisconn.Config, redisconn.Report) {
			s := redistest.Start(t, aof, redistest.WithMutualTLS())
			return redisconn.Config{URL: s.URL(), CAFile: s.TLS().CA, CertFile: s.TLS().Cert, KeyFile: s.TLS().Key}, redisconn.Report{Mode: "standalone", Masters: 1}
		},
		"user": func(t *testing.T) (redisconn.Config, redisconn.Report) {
			s := redistest.Start(t, aof, redistest.WithUser("ada", "hunter2", "~bellhop:*", "+@all"))
			return redisconn.Config{URL: "redis://" + s.Addr(), Username: "ada", Password: "hunter2"}, redisconn.Report{Mode: "standalone", Masters: 1}
		},
		"sentinel": func(t *testing.T) (redisconn.Config, redisconn.Report) {
			return redisconn.Config{URL: redistest.Sentinel(t, aof).URL()}, redisconn.Report{Mode: "sentinel", Masters: 1}
		},
		"cluster": func(t *testing.T) (redisconn.Config, redisconn.Report) {
			return redisconn.Config{URL: redistest.Cluster(t, aof, password).URL()}, redisconn.Report{Mode: "cluster", Masters: 3}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, want := start(t)
			got, log, err := check(t, cfg)
			if err != nil {
				t.Fatal(err)
			}
			want.Eviction, want.Persistence = "noeviction", "aof"
			if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(redisconn.Report{}, "Server", "Version")); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
			if got.Server == "unknown" || got.Version == "unknown" {
				t.Errorf("server %q, version %q", got.Server, got.Version)
			}
			if log != "" {
				t.Errorf("logged about a sound Redis: %s", log)
			}
		})
	}
}

func TestOpenReturnsTheConcreteClient(t *testing.T) {
	t.Parallel()
	for url, isCluster := range map[string]bool{
		"": false, "unix:///s": false, "redis-sentinel://h/m": false, "redis-cluster://h": true, "rediss-cluster://h": true,
	} {
		rdb, err := redisconn.Open(redisconn.Config{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		defer rdb.Close()
		switch rdb.(type) {
		case *redis.ClusterClient:
			if !isCluster {
				t.Errorf("%q opens a cluster client", url)
			}
		case *redis.Client:
			if isCluster {
				t.Errorf("%q opens a plain client", url)
			}
		default:
			t.Errorf("%q opens a %T", url, rdb)
		}
	}
}

func TestWhatWaitingDoesNotMendFailsAtOnce(t *testing.T) {
	t.Parallel()
	strangers := redistest.NewTLSFiles(t)
	for name, tc := range map[string]struct {
		start func(t *testing.T) redisconn.Config
		want  string
	}{
		"wrong password": {func(t *testing.T) redisconn.Config {
			s := redistest.Start(t, redistest.WithPassword("right"))
			return redisconn.Config{URL: "redis://:hunter2@" + s.Addr()}
		}, "correct user name and password"},
		"no password": {func(t *testing.T) redisconn.Config {
			return redisconn.Config{URL: "redis://" + redistest.Start(t, redistest.WithPassword("right")).Addr()}
		}, "asks for a password"},
		"unknown user": {func(t *testing.T) redisconn.Config {
			return redisconn.Config{URL: "redis://eve:hunter2@" + redistest.Start(t).Addr()}
		}, "correct user name and password"},
		"wrong authority": {func(t *testing.T) redisconn.Config {
			return redisconn.Config{URL: redistest.Start(t, redistest.WithTLS()).URL(), CAFile: strangers.CA}
		}, "ca_file"},
		"system's authorities": {func(t *testing.T) redisconn.Config {
			return redisconn.Config{URL: redistest.Start(t, redistest.WithTLS()).URL()}
		}, "ca_file"},
		"wrong host": {func(t *testing.T) redisconn.Config {
			s := redistest.Start(t, redistest.WithTLS())
			return redisconn.Config{URL: strings.Replace(s.URL(), "127.0.0.1", "localhost", 1), CAFile: s.TLS().CA}
		}, "server_name"},
		"no client certificate": {func(t *testing.T) redisconn.Config {
			s := redistest.Start(t, redistest.WithMutualTLS())
			return redisconn.Config{URL: s.URL(), CAFile: s.TLS().CA}
		}, "cert_file and key_file"},
		"database out of range": {func(t *testing.T) redisconn.Config {
			return redisconn.Config{URL: "redis://" + redistest.Start(t).Addr() + "/99"}
		}, "choose a database"},
		"cluster scheme, plain server": {func(t *testing.T) redisconn.Config {
			return redisconn.Config{URL: "redis-cluster://" + redistest.Start(t).Addr()}
		}, "write redis://"},
		"plain scheme, cluster node": {func(t *testing.T) redisconn.Config {
			return redisconn.Config{URL: redistest.Start(t, redistest.WithConfig("cluster-enabled", "yes")).URL()}
		}, "write redis-cluster://"},
		"a web server": {func(t *testing.T) redisconn.Config {
			s := httptest.NewServer(http.NotFoundHandler())
			t.Cleanup(s.Close)
			return redisconn.Config{URL: strings.Replace(s.URL, "http://", "redis://", 1)}
		}, "what listens there is no Redis"},
		"plain scheme, sentinel; unknown master": {func(t *testing.T) redisconn.Config {
			set := redistest.Sentinel(t)
			cfg := redisconn.Config{URL: "redis://" + set.Sentinels[0].Addr()}
			if _, _, err := check(t, cfg); err == nil || !strings.Contains(err.Error(), "write redis-sentinel://") {
				t.Errorf("a sentinel behind redis://: %v", err)
			}
			if _, _, err := check(t, redisconn.Config{URL: set.Replica.URL()}); err == nil || !strings.Contains(err.Error(), "read-only replica") {
				t.Errorf("a replica: %v", err)
			}
			return redisconn.Config{URL: strings.Replace(set.URL(), "/bellhop/", "/belhop/", 1)}
		}, "no master of that name"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := tc.start(t)
			cfg.WaitFor = 3 * time.Second // a wait is seen in the log
			_, log, err := check(t, cfg)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v does not say %q", err, tc.want)
			}
			if strings.Contains(log, "waiting") {
				t.Errorf("waited: %s", log)
			}
		})
	}
}

func TestEvictionIsRefusedUnlessAllowed(t *testing.T) {
	t.Parallel()
	cluster := redistest.Cluster(t)
	// One bad master of three is enough.
	if err := cluster.Nodes[1].Client().ConfigSet(t.Context(), "maxmemory-policy", "volatile-ttl").Err(); err != nil {
		t.Fatal(err)
	}
	plain := redistest.Start(t, redistest.WithConfig("maxmemory-policy", "allkeys-lru"))
	for url, policy := range map[string]string{plain.URL(): "allkeys-lru", cluster.URL(): "volatile-ttl"} {
		_, _, err := check(t, redisconn.Config{URL: url})
		if err == nil || !strings.Contains(err.Error(), policy) || !strings.Contains(err.Error(), "CONFIG SET maxmemory-policy noeviction") {
			t.Errorf("%s: got %v", url, err)
		}
		report, _, err := check(t, redisconn.Config{URL: url, AllowEviction: true})
		if err != nil || report.Eviction != policy {
			t.Errorf("allowed: got %q, %v", report.Eviction, err)
		}
	}
}

func TestPersistenceIsWarnedOf(t *testing.T) {
	t.Parallel()
	for want, opt := range map[string]redistest.Option{
		"none": redistest.WithConfig("save", ""),
		"rdb":  redistest.WithConfig("save", "3600 1"),
		"aof":  redistest.WithAOF(),
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			report, log, err := check(t, redisconn.Config{URL: redistest.Start(t, opt).URL()})
			if err != nil || report.Persistence != want {
				t.Fatalf("persistence %q, %v", report.Persistence, err)
			}
			if warned := strings.Contains(log, "appendonly yes"); warned != (want != "aof") {
				t.Errorf("log: %s", log)
			}
		})
	}
}

func TestWhatCannotBeAskedIsUnknownWithOneWarning(t *testing.T) {
	t.Parallel()
	limited := redistest.Start(t, redistest.WithUser("ada", "hunter2", "~asynq:*", "~bellhop:*", "&*", "+@all", "-@dangerous"))
	for name, rdb := range map[string]redis.UniversalClient{"limited": limited.Client(), "embedded": redistest.Embedded(t)} {
		report, log, err := checkClient(t, rdb, redisconn.Config{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := redisconn.Report{Mode: "standalone", Masters: 1, Server: "unknown", Version: "unknown", Eviction: "unknown", Persistence: "unknown"}
		if diff := cmp.Diff(want, report, cmpopts.IgnoreFields(redisconn.Report{}, "Warnings")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if len(report.Warnings) != 1 || strings.Count(log, "\n") != 1 {
			t.Errorf("%s: warnings %q, log %s", name, report.Warnings, log)
		}
	}
}

func TestStartWaitsForALateRedis(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	s.Kill()
	rdb, err := redisconn.Open(redisconn.Config{URL: s.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	waiting := make(chan struct{})
	log := &buffer{onWrite: sync.OnceFunc(func() { close(waiting) })}
	done := make(chan error, 1)
	go func() {
		_, err := redisconn.Check(t.Context(), rdb, redisconn.Config{URL: s.URL()}, slog.New(slog.NewTextHandler(log, nil)))
		done <- err
	}()
	<-waiting
	s.Restart()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "waiting for it"); n != 1 {
		t.Errorf("told %d times that it waits: %s", n, log)
	}
}

func TestStartGivesUp(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	s.Kill()
	_, _, err := check(t, redisconn.Config{URL: s.URL(), WaitFor: -1})
	if err == nil || !strings.Contains(err.Error(), "BELLHOP_REDIS_URL") {
		t.Errorf("without a wait: %v", err)
	}
	_, log, err := check(t, redisconn.Config{URL: s.URL(), WaitFor: time.Second})
	if err == nil || !strings.Contains(err.Error(), "within 1s") || !strings.Contains(log, "waiting") {
		t.Errorf("after the wait: %v, %s", err, log)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	rdb, err := redisconn.Open(redisconn.Config{URL: s.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	if _, err := redisconn.Check(ctx, rdb, redisconn.Config{}, slog.New(slog.DiscardHandler)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A plain Redis waits in silence for the rest of what it takes for a command.
func TestTLSNeverFallsBackToPlainText(t *testing.T) {
	t.Parallel()
	cfg := redisconn.Config{URL: "rediss://" + redistest.Start(t).Addr() + "?dial_timeout=200ms", WaitFor: -1}
	if _, _, err := check(t, cfg); err == nil || !strings.Contains(err.Error(), "redis:// if it speaks no TLS") {
		t.Errorf("got %v", err)
	}
}

func TestPasswordFileIsReadAnew(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := redistest.Start(t, redistest.WithPassword("old"))
	file := filepath.Join(t.TempDir(), "password")
	write := func(password string) {
		if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old")
	rdb, err := redisconn.Open(redisconn.Config{URL: "redis://" + s.Addr(), PasswordFile: file})
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	if err := rdb.Ping(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.Admin().ConfigSet(ctx, "requirepass", "new").Err(); err != nil {
		t.Fatal(err)
	}
	write("new")
	// All connections are gone, the next one must log in again.
	if err := rdb.Do(ctx, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no").Err(); err != nil {
		t.Fatal(err)
	}
	if err := rdb.Ping(ctx).Err(); err != nil {
		t.Error(err)
	}
}

func TestValidateReportsEveryFault(t *testing.T) {
	t.Parallel()
	err := redisconn.Config{URL: "redis://h", Password: "hunter2", PasswordFile: "f", CertFile: "c", PoolSize: -1}.Validate()
	for _, want := range []string{"password_file are both set", "need each other", "rediss://", "pool_size is -1"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if err := (redisconn.Config{}).Validate(); err != nil {
		t.Errorf("the zero value: %v", err)
	}
}

func TestOpenNamesTheFileItCannotRead(t *testing.T) {
	t.Parallel()
	none := filepath.Join(t.TempDir(), "none")
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, cfg := range map[string]redisconn.Config{
		"check ca_file":                 {URL: "rediss://h", CAFile: none},
		"holds no PEM certificate":      {URL: "rediss://h", CAFile: empty},
		"check cert_file and key_file":  {URL: "rediss://h", CertFile: none, KeyFile: none},
		"check password_file":           {PasswordFile: none},
		"a user name but no password":   {Username: "ada"},
		"did you mean redis-cluster://": {URL: "redis-clutser://h"},
	} {
		if _, err := redisconn.Open(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

// A server that never answers must not eat the whole wait in one try, and a
// deadline of the caller holds.
func TestASilentServerDoesNotHoldTheCaller(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	cfg := redisconn.Config{URL: "redis://" + l.Addr().String()}
	rdb, err := redisconn.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer rdb.Close()
	start := time.Now()
	if _, err := redisconn.Check(ctx, rdb, cfg, slog.New(slog.DiscardHandler)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("held for %s", took)
	}
}

type buffer struct {
	mu      sync.Mutex
	b       bytes.Buffer
	onWrite func()
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.onWrite != nil {
		b.onWrite()
	}
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// What looks for the master ends no connection to it, and ends itself with the client (see TestMain).
func TestSentinelWatchLeavesTheMasterAlone(t *testing.T) {
	t.Parallel()
	set := redistest.Sentinel(t)
	rdb, err := redisconn.Open(redisconn.Config{URL: set.URL()})
	if err != nil {
		t.Fatal(err)
	}
	before, err := rdb.ClientID(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(3 * time.Second) // the watch looks three times
	for time.Now().Before(deadline) {
		now, err := rdb.ClientID(t.Context()).Result()
		if err != nil || now != before {
			t.Fatalf("connection %d became %d: %v", before, now, err)
		}
		<-time.After(100 * time.Millisecond)
	}
	if err := rdb.Close(); err != nil {
		t.Fatal(err)
	}
}
