package triggers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
)

func newStore(t testing.TB, rdb redis.UniversalClient, cfg Config) *Store {
	t.Helper()
	s, err := NewStore(rdb, knownTasks(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func logging(name string) Trigger {
	return Trigger{Name: name, On: "**", Run: "log:write"}
}

func put(t testing.TB, s *Store, trigger Trigger, c Change) Stored {
	t.Helper()
	stored, err := s.Put(t.Context(), trigger, c)
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

func TestStoreKeepsTriggers(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		s := newStore(t, rdb, Config{})
		ctx := t.Context()
		if _, err := s.Get(ctx, "a"); !errors.Is(err, ErrNotFound) {
			t.Errorf("an empty store gave %v", err)
		}
		a := logging("a")
		a.With = struct {
			M string `json:"m"`
		}{"${event.id}"}
		made := put(t, s, a, Change{Revision: None, By: "ann", Note: "first"})
		if made.Revision != 1 || made.Created != made.Changed || made.Created.IsZero() || made.By != "ann" || made.Note != "first" || made.Off {
			t.Errorf("made %+v", made)
		}
		got, err := s.Get(ctx, "a")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(made, got, ignoreOrigin); diff != "" {
			t.Errorf("stored and answered (-answered +stored):\n%s", diff)
		}
		b := put(t, s, Trigger{Name: "b", On: "x.*", Run: "any:thing", Disabled: true}, Change{})
		if b.Revision != 2 || !b.Off || !b.Trigger.Disabled {
			t.Errorf("b is %+v", b)
		}

		a.When = "event.data.n > 1"
		changed := put(t, s, a, Change{Revision: 1, By: "bob"})
		if changed.Revision != 3 || !changed.Created.Equal(made.Created) || changed.By != "bob" || changed.Note != "" || changed.Trigger.When != a.When {
			t.Errorf("changed to %+v", changed)
		}
		conflict := new(ConflictError)
		for _, revision := range []int64{1, None, 99} {
			if _, err := s.Put(ctx, a, Change{Revision: revision}); !errors.Is(err, ErrConflict) || !errors.As(err, &conflict) || conflict.Revision != 3 {
				t.Errorf("revision %d gave %v", revision, err)
			}
		}
		if _, err := s.Put(ctx, logging("new"), Change{Revision: 3}); !errors.As(err, &conflict) || conflict.Revision != 0 {
			t.Errorf("a change of what isn't there gave %v", err)
		}

		off, err := s.Switch(ctx, "a", false, Change{By: "cid", Note: "too loud"})
		if err != nil || !off.Off || !off.Trigger.Disabled || off.Revision != 4 || off.Trigger.When != a.When {
			t.Errorf("switched to %+v, %v", off, err)
		}
		on, err := s.Switch(ctx, "a", true, Change{Revision: 4})
		if err != nil || on.Off || on.Trigger.Disabled || on.Revision != 5 {
			t.Errorf("switched to %+v, %v", on, err)
		}
		if _, err := s.Switch(ctx, "none", false, Change{}); !errors.Is(err, ErrNotFound) {
			t.Errorf("switching off what isn't there gave %v", err)
		}

		all, err := s.All(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]Stored{on, b}, all, ignoreOrigin, cmpopts.IgnoreFields(Stored{}, "By", "Note")); diff != "" {
			t.Error(diff)
		}
		if err := s.Delete(ctx, "a", Change{Revision: 4}); !errors.Is(err, ErrConflict) {
			t.Errorf("deleting an old revision gave %v", err)
		}
		if err := s.Delete(ctx, "a", Change{Revision: 5}); err != nil {
			t.Error(err)
		}
		if err := s.Delete(ctx, "a", Change{}); !errors.Is(err, ErrNotFound) {
			t.Errorf("deleting twice gave %v", err)
		}
		if again := put(t, s, logging("a"), Change{Revision: None}); again.Revision != 7 {
			t.Errorf("a trigger made anew has revision %d: it must not be taken for the old one", again.Revision)
		}
		// Another group has triggers of its own.
		if list, err := newStore(t, rdb, Config{Group: "other"}).All(ctx); err != nil || len(list) != 0 {
			t.Errorf("%v, %v", list, err)
		}
	})
}

func TestStoreRefusesFaultyTriggers(t *testing.T) {
	t.Parallel()
	s := newStore(t, redistest.Embedded(t), Config{})
	_, err := s.Put(t.Context(), Trigger{Name: "A!", On: "a", When: "1 +", Run: "log:wirte"}, Change{})
	wantFaults(t, err, "name:", "when:", `run:|did you mean "log:write"`)
	for _, c := range []Change{{By: string(make([]byte, 300))}, {Note: string(make([]byte, 2000))}} {
		if _, err := s.Put(t.Context(), logging("a"), c); err == nil {
			t.Error("a change that says too much was taken")
		}
	}
	long := logging("a")
	long.With = map[string]any{"m": string(make([]byte, MaxTriggerBytes))}
	if _, err := s.Put(t.Context(), long, Change{}); err == nil {
		t.Error("a trigger that is too long was taken")
	}
	if list, err := s.All(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

// Editors that read, change and write at the same time: no change is lost.
func TestStoreEditorsDoNotOverwriteEachOther(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		put(t, newStore(t, rdb, Config{}), Trigger{Name: "a", On: "**", Run: "any:thing", With: map[string]any{}}, Change{})
		const editors, edits = 4, 10
		var wait sync.WaitGroup
		var conflicts [editors]int
		for e := range editors {
			s := newStore(t, rdb, Config{})
			wait.Go(func() {
				for n := 0; n < edits; {
					now, err := s.Get(t.Context(), "a")
					if err != nil {
						t.Error(err)
						return
					}
					with, _ := now.Trigger.With.(map[string]any)
					with[fmt.Sprintf("edit-%d-%d", e, n)] = true
					_, err = s.Put(t.Context(), *now.Trigger, Change{Revision: now.Revision})
					switch {
					case err == nil:
						n++
					case errors.Is(err, ErrConflict):
						conflicts[e]++
					default:
						t.Error(err)
						return
					}
				}
			})
		}
		wait.Wait()
		now, err := newStore(t, rdb, Config{}).Get(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if with, _ := now.Trigger.With.(map[string]any); len(with) != editors*edits || now.Revision != editors*edits+1 {
			t.Errorf("%d edits are left at revision %d, want %d", len(with), now.Revision, editors*edits)
		}
		t.Logf("conflicts: %v", conflicts)
	})
}

func TestStoreSwitchesAtTheSameTimeAllSucceed(t *testing.T) {
	t.Parallel()
	s := newStore(t, redistest.New(t), Config{})
	put(t, s, logging("a"), Change{})
	var wait sync.WaitGroup
	for n := range 4 {
		wait.Go(func() {
			if _, err := s.Switch(t.Context(), "a", n%2 == 0, Change{}); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
}

// twice sends each script again after its answer, as the client does when the answer was lost.
type twice struct{}

func (twice) DialHook(next redis.DialHook) redis.DialHook { return next }

func (twice) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (twice) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if err := next(ctx, cmd); err != nil || cmd.Name() != "evalsha" {
			return err
		}
		return next(ctx, cmd)
	}
}

func TestStoreAResentChangeGetsItsAnswer(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		if client, ok := rdb.(*redis.Client); ok {
			again := redis.NewClient(client.Options())
			t.Cleanup(func() { _ = again.Close() })
			again.AddHook(twice{})
			rdb = again
		} else {
			t.Fatalf("a %T", rdb)
		}
		s := newStore(t, rdb, Config{})
		for n := range 3 {
			if made := put(t, s, logging("a"), Change{Revision: []int64{None, 1, 2}[n]}); made.Revision != int64(n+1) {
				t.Errorf("revision %d, want %d", made.Revision, n+1)
			}
		}
		if _, err := s.Switch(t.Context(), "a", false, Change{Revision: 3}); err != nil {
			t.Error(err)
		}
		if err := s.Delete(t.Context(), "a", Change{Revision: 4}); err != nil {
			t.Error(err)
		}
	})
}

func TestStoreIsBounded(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t)
	s := newStore(t, rdb, Config{})
	first := put(t, s, logging("first"), Change{})
	fields := []any{}
	for n := range MaxStored - 1 {
		fields = append(fields, fmt.Sprint("t", n), `1 1 {"off":true}`)
	}
	if err := rdb.HSet(t.Context(), s.keys.rules, fields...).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(t.Context(), logging("one-more"), Change{}); !errors.Is(err, ErrStoreFull) {
		t.Errorf("one more gave %v", err)
	}
	put(t, s, logging("first"), Change{Revision: first.Revision}) // a change needs no room
}

func TestStoreReadsAroundDamage(t *testing.T) {
	t.Parallel()
	rdb := redistest.Embedded(t)
	s := newStore(t, rdb, Config{})
	put(t, s, logging("good"), Change{})
	damage := map[string]string{
		"no-json": "7 1700000000000 {", "no-space": "nonsense", "other-name": `8 1700000000000 {"trigger":{"name":"x","on":"a","run":"log:write"}}`,
		"newer": `9 1700000000000 {"trigger":{"name":"newer","on":"a","run":"log:write","from_next_release":1}}`,
	}
	for name, text := range damage {
		if err := rdb.HSet(t.Context(), s.keys.rules, name, text).Err(); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.All(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	faulty := 0
	for _, stored := range all {
		if stored.Fault != nil {
			faulty++
		}
	}
	if len(all) != len(damage)+1 || faulty != len(damage) {
		t.Errorf("%d records, %d faulty: %+v", len(all), faulty, all)
	}
	for name := range damage {
		if err := s.Delete(t.Context(), name, Change{}); err != nil {
			t.Errorf("%s can't be deleted: %v", name, err)
		}
	}
	if n := rdb.HLen(t.Context(), s.keys.rules).Val(); n != 1 {
		t.Errorf("%d records are left", n)
	}
}

func TestStoreInACluster(t *testing.T) {
	t.Parallel()
	rdb := redistest.Cluster(t).Client()
	s := newStore(t, rdb, Config{})
	rules := follow(t, s, knownTasks(), nil)
	put(t, s, logging("a"), Change{})
	eventually(t, func() error { return rules.wants("a") })
	eventually(t, func() error {
		l, err := s.Lookup(t.Context(), "a")
		if err == nil && l.State != StateActive {
			err = fmt.Errorf("it is %s", l.State)
		}
		return err
	})
	if err := s.Delete(t.Context(), "a", Change{}); err != nil {
		t.Error(err)
	}
	eventually(t, func() error { return rules.wants() })
}

func TestStoreAnswersWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := newStore(t, server.Client(), Config{})
	server.Kill()
	begin := time.Now()
	if _, err := s.Put(t.Context(), logging("a"), Change{}); err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrConflict) {
		t.Errorf("gave %v", err)
	}
	if _, err := s.Get(t.Context(), "a"); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("gave %v", err)
	}
	t.Logf("after %v", time.Since(begin))
}
