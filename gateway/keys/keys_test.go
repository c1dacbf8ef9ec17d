package keys

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestKeyFromCreationToRevocation(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx, store := t.Context(), NewStore(rdb, Config{})
		ends := time.Now().Add(90 * 24 * time.Hour).Truncate(time.Millisecond).UTC()
		token, made, err := store.Create(ctx, Key{Name: "shop", Scopes: []Scope{Enqueue, Publish, Publish}, Expires: ends, Rate: 100})
		if err != nil {
			t.Fatal(err)
		}
		want := Key{ID: token[3:15], Name: "shop", Scopes: []Scope{Publish, Enqueue}, Created: made.Created, Expires: ends, Rate: 100}
		if diff := cmp.Diff(want, made); diff != "" {
			t.Errorf("created (-want +got):\n%s", diff)
		}
		if got, err := store.Verify(ctx, token); err != nil || !cmp.Equal(want, got) {
			t.Errorf("verified %+v, %v", got, err)
		}
		other, _, err := store.Create(ctx, Key{Name: "eyes", Scopes: []Scope{Read}})
		if err != nil {
			t.Fatal(err)
		}

		list, err := store.List(ctx)
		if err != nil || len(list) != 2 {
			t.Fatalf("list: %+v, %v", list, err)
		}
		if diff := cmp.Diff(want, list[0], cmpopts.IgnoreFields(Key{}, "LastUsed")); diff != "" {
			t.Errorf("listed (-want +got):\n%s", diff)
		}
		if used := time.Since(list[0].LastUsed); used < -time.Minute || used > time.Minute {
			t.Errorf("last used at %v", list[0].LastUsed)
		}
		if !list[1].LastUsed.IsZero() {
			t.Errorf("the second was never used, but at %v", list[1].LastUsed)
		}

		if err := store.Revoke(ctx, made.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Verify(ctx, token); !errors.Is(err, ErrUnknown) {
			t.Errorf("revoked, but: %v", err)
		}
		if err := store.Revoke(ctx, made.ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("revoked twice: %v", err)
		}
		if _, err := store.Verify(ctx, other); err != nil {
			t.Errorf("the other one: %v", err)
		}
	})
}

func TestRedisHoldsNoToken(t *testing.T) {
	t.Parallel()
	ctx, rdb := t.Context(), redistest.New(t)
	token, _, err := NewStore(rdb, Config{}).Create(ctx, Key{Name: "n", Scopes: []Scope{Read}})
	if err != nil {
		t.Fatal(err)
	}
	secret := token[16:]
	names, err := rdb.Keys(ctx, "*").Result()
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		dump, err := rdb.Dump(ctx, name).Result()
		if err != nil {
			t.Fatal(err)
		}
		// Any part of it would do harm.
		for i := 0; i+8 <= len(secret); i++ {
			if strings.Contains(dump, secret[i:i+8]) {
				t.Fatalf("%s holds a part of the token", name)
			}
		}
	}
}

func TestCreateTellsEveryFault(t *testing.T) {
	t.Parallel()
	store := NewStore(nil, Config{}) // what is refused never gets to Redis
	_, _, err := store.Create(t.Context(), Key{Scopes: []Scope{"publsh"}, Expires: time.Unix(1, 0), Rate: -1})
	if err == nil {
		t.Fatal("created")
	}
	for _, part := range []string{"name", `did you mean "publish"?`, "1970", "-1"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in: %v", part, err)
		}
	}
	if _, _, err := store.Create(t.Context(), Key{Name: "a\nb"}); err == nil || !strings.Contains(err.Error(), "printed") || !strings.Contains(err.Error(), "scope") {
		t.Error(err)
	}
}

func TestParseScopes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]Scope{
		"publish": {Publish}, " read ,publish,read": {Publish, Read}, "admin": {Admin}, "": nil, ",": nil, "reed": nil, "publish enqueue": nil,
	} {
		got, err := ParseScopes(text)
		if !cmp.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	admin, reader := Key{Scopes: []Scope{Admin}}, Key{Scopes: []Scope{Read}}
	for _, s := range Scopes() {
		if !admin.Allows(s) || reader.Allows(s) != (s == Read) {
			t.Errorf("scope %s: admin %v, reader %v", s, admin.Allows(s), reader.Allows(s))
		}
	}
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	store := NewStore(redistest.New(t), Config{})
	ends := time.Now().Add(300 * time.Millisecond)
	token, _, err := store.Create(t.Context(), Key{Name: "n", Scopes: []Scope{Read}, Expires: ends})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		_, err := store.Verify(t.Context(), token)
		if err == nil && time.Now().After(ends.Add(time.Second)) {
			t.Fatal("accepted after its end")
		}
		return errors.Is(err, ErrExpired)
	})
}

func TestTheFleetFollowsWithinSeconds(t *testing.T) {
	t.Parallel()
	ctx, rdb := t.Context(), redistest.New(t)
	here, there := NewStore(rdb, Config{}), NewStore(rdb, Config{Refresh: 200 * time.Millisecond})
	first, key, err := here.Create(ctx, Key{Name: "first", Scopes: []Scope{Read}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := there.Verify(ctx, first); err != nil {
		t.Fatal(err)
	}
	second, _, err := here.Create(ctx, Key{Name: "second", Scopes: []Scope{Read}})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { _, err := there.Verify(ctx, second); return err == nil })

	if err := here.Revoke(ctx, key.ID); err != nil {
		t.Fatal(err)
	}
	revoked := time.Now()
	eventually(t, func() bool { _, err := there.Verify(ctx, first); return errors.Is(err, ErrUnknown) })
	t.Logf("refused elsewhere after %v", time.Since(revoked))
}

// gate holds the first GET back, which is the look at the version.
type gate struct {
	asked, open chan struct{}
	once        sync.Once
}

func (*gate) DialHook(next redis.DialHook) redis.DialHook { return next }

func (*gate) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (g *gate) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "get" {
			g.once.Do(func() {
				close(g.asked)
				<-g.open
			})
		}
		return next(ctx, cmd)
	}
}

// While one request asks, after a rest, whether the keys have changed, the others must not be let in by what was true long before.
func TestRevokedKeyIsRefusedBesideTheOneThatAsks(t *testing.T) {
	t.Parallel()
	ctx, server := t.Context(), redistest.Start(t)
	elsewhere, rdb := NewStore(server.Client(), Config{}), server.Client()
	token, key, err := elsewhere.Create(ctx, Key{Name: "n", Scopes: []Scope{Read}})
	if err != nil {
		t.Fatal(err)
	}
	store := NewStore(rdb, Config{Trust: 10 * time.Minute})
	if _, err := store.Verify(ctx, token); err != nil {
		t.Fatal(err)
	}
	if err := elsewhere.Revoke(ctx, key.ID); err != nil {
		t.Fatal(err)
	}
	store.table.current.Load().read = time.Now().Add(-2 * DefaultRefresh) // nobody came meanwhile
	g := &gate{asked: make(chan struct{}), open: make(chan struct{})}
	rdb.AddHook(g)
	outcomes := make(chan error, 21)
	verify := func() {
		_, err := store.Verify(ctx, token)
		outcomes <- err
	}
	go verify()
	<-g.asked
	for range 20 {
		go verify()
	}
	select {
	case err := <-outcomes:
		t.Errorf("answered before Redis was: %v", err)
		outcomes <- err
	case <-time.After(50 * time.Millisecond):
	}
	close(g.open)
	for range 21 {
		if err := <-outcomes; !errors.Is(err, ErrUnknown) {
			t.Errorf("a key that was revoked %v ago: %v", 2*DefaultRefresh, err)
		}
	}
}

func TestRedisAway(t *testing.T) {
	t.Parallel()
	ctx, server := t.Context(), redistest.Start(t, redistest.WithAOF())
	store := NewStore(server.Client(), Config{Refresh: 100 * time.Millisecond, Trust: time.Second})
	token, _, err := store.Create(ctx, Key{Name: "n", Scopes: []Scope{Read}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Verify(ctx, token); err != nil {
		t.Fatal(err)
	}
	asked := store.table.current.Load().read
	server.Kill()
	for {
		began := time.Now()
		if _, err := store.Verify(ctx, token); err != nil {
			if !errors.Is(err, ErrUnavailable) {
				t.Fatal(err)
			}
			if age := time.Since(asked); age < time.Second {
				t.Fatalf("refused after %v: the keys are trusted for a second", age)
			}
			break
		}
		if began.Sub(asked) > 2*time.Second {
			t.Fatalf("accepted with keys that are %v old", began.Sub(asked))
		}
	}
	if _, err := store.Verify(ctx, "bh_nothing"); !errors.Is(err, ErrUnknown) {
		t.Errorf("what is no token at all needs no Redis to tell: %v", err)
	}
	server.Restart()
	eventually(t, func() bool { _, err := store.Verify(ctx, token); return err == nil })
}

// A Redis that hangs holds each request up for a bounded time, and most of them for none.
func TestRedisHangs(t *testing.T) {
	t.Parallel()
	ctx, server := t.Context(), redistest.Start(t)
	store := NewStore(server.Client(), Config{Refresh: 100 * time.Millisecond, Trust: 100 * time.Millisecond})
	token, _, err := store.Create(ctx, Key{Name: "n", Scopes: []Scope{Read}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Verify(ctx, token); err != nil {
		t.Fatal(err)
	}
	server.Pause()
	defer server.Resume()
	eventually(t, func() bool { _, err := store.Verify(ctx, token); return errors.Is(err, ErrUnavailable) })
	began := time.Now()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := store.Verify(ctx, token); !errors.Is(err, ErrUnavailable) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	t.Logf("50 refused after %v", time.Since(began))
	if took := time.Since(began); took > 20*time.Second { // one after the other they would take 50 s
		t.Errorf("50 requests took %v", took)
	}
}

func TestUseIsNotedOnceAMinute(t *testing.T) {
	t.Parallel()
	ctx, rdb := t.Context(), redistest.New(t)
	calls := count(rdb)
	var stores []*Store
	for range 3 {
		stores = append(stores, NewStore(rdb, Config{Refresh: 100 * time.Millisecond}))
	}
	token, key, err := stores[0].Create(ctx, Key{Name: "n", Scopes: []Scope{Read}})
	if err != nil {
		t.Fatal(err)
	}
	before := calls.of("evalsha") + calls.of("eval")
	began := time.Now()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for time.Since(began) < 300*time.Millisecond {
				for _, s := range stores {
					if _, err := s.Verify(ctx, token); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	// The first process of all loads the script besides.
	if notes := calls.of("evalsha") + calls.of("eval") - before; notes < 3 || notes > 2*3 {
		t.Errorf("%d notes by 3 processes", notes)
	}
	if err := stores[0].Revoke(ctx, key.ID); err != nil {
		t.Fatal(err)
	}
	if n, err := rdb.Exists(ctx, usedKey).Result(); err != nil || n != 0 {
		t.Errorf("a revoked key left its last use: %d, %v", n, err)
	}
}

func TestTooManyKeys(t *testing.T) {
	t.Parallel()
	ctx, rdb := t.Context(), redistest.New(t)
	fields := make([]any, 0, 2*MaxKeys)
	for range MaxKeys {
		fields = append(fields, randomText(idLength), "{}")
	}
	if err := rdb.HSet(ctx, recordsKey, fields...).Err(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := NewStore(rdb, Config{}).Create(ctx, Key{Name: "n", Scopes: []Scope{Read}}); !errors.Is(err, ErrTooMany) {
		t.Error(err)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	if err := (Config{}).Validate(); err != nil {
		t.Error(err)
	}
	err := Config{Refresh: time.Hour, Trust: time.Second}.Validate()
	if err == nil || !strings.Contains(err.Error(), "refresh:") || !strings.Contains(err.Error(), "trust:") {
		t.Error(err)
	}
}

// calls counts the commands that a client sends.
type calls struct {
	mu    sync.Mutex
	names map[string]int
	total atomic.Int64
}

func count(rdb redis.UniversalClient) *calls {
	c := &calls{names: make(map[string]int)}
	rdb.AddHook(c)
	return c
}

func (c *calls) of(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.names[name]
}

func (c *calls) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (c *calls) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.mu.Lock()
		c.names[cmd.Name()]++
		c.mu.Unlock()
		c.total.Add(1)
		return next(ctx, cmd)
	}
}

func (c *calls) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.total.Add(int64(len(cmds)))
		return next(ctx, cmds)
	}
}

// eventually polls what sends no signal.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("not within 30s")
		}
		<-tick.C
	}
}
