package keys

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// Verify returns the key that the token belongs to. ErrUnknown, ErrExpired; ErrUnavailable when Redis has been away for too
// long to tell. Wrong tokens, however close, take one path: a hash, a comparison in constant time.
func (s *Store) Verify(ctx context.Context, text string) (Key, error) {
	token, ok := parseToken(text)
	if !ok {
		return Key{}, ErrUnknown
	}
	known, err := s.find(ctx, token.id)
	if err != nil {
		return Key{}, err
	}
	if !known.matches(token.hash) {
		return Key{}, ErrUnknown
	}
	if known.key.Expired(time.Now()) {
		return Key{}, ErrExpired
	}
	s.touch(ctx, known)
	return known.key, nil
}

// known is a key as this process holds it.
type known struct {
	key     Key
	hash    [sha256.Size]byte
	none    bool          // stands for a key that is not there
	touched *atomic.Int64 // Unix seconds of this process' last note of its use; the same one when the key is read again
}

// nobody is compared with where there is no key, so that an unknown id takes the time of a known one.
var nobody = &known{none: true}

func (k *known) matches(hash [sha256.Size]byte) bool {
	return subtle.ConstantTimeCompare(k.hash[:], hash[:]) == 1 && !k.none
}

// Stands returns nil if a key that was verified before is still good: for what goes on after that. Errors are those of Verify.
func (s *Store) Stands(ctx context.Context, k Key) error {
	known, err := s.find(ctx, k.ID)
	switch {
	case err != nil:
		return err
	case known.none:
		return ErrUnknown
	case known.key.Expired(time.Now()):
		return ErrExpired
	}
	return nil
}

// table is all the keys as of the last look.
type table struct {
	current atomic.Pointer[snapshot]
	refresh sync.Mutex   // held by the one who asks Redis
	next    atomic.Int64 // Unix nanoseconds: nobody need ask before
}

type snapshot struct {
	version string
	keys    map[string]*known
	read    time.Time // when Redis was asked; what it answered is at least as new
}

func (t *table) outdate() {
	t.next.Store(0)
	if now := t.current.Load(); now != nil {
		t.current.CompareAndSwap(now, &snapshot{version: now.version, keys: now.keys})
	}
}

// unknownAfter is how old the table may be for an id that is not in it: a key that was just made works at once, and a flood
// of guesses costs Redis one small call in that time.
const unknownAfter = 500 * time.Millisecond

func (s *Store) find(ctx context.Context, id string) (*known, error) {
	// Redis is asked early, so that under load nobody waits for its answer.
	now, err := s.fresh(ctx, s.cfg.Refresh/2, false)
	if err == nil && time.Since(now.read) >= s.cfg.Refresh {
		now, err = s.fresh(ctx, s.cfg.Refresh, true)
	}
	if err != nil {
		return nil, err
	}
	if k, ok := now.keys[id]; ok {
		return k, nil
	}
	if now, err = s.fresh(ctx, unknownAfter, false); err != nil {
		return nil, err
	}
	if k, ok := now.keys[id]; ok {
		return k, nil
	}
	return nobody, nil
}

// fresh returns the table, at most wanted old if Redis answers, and at most Config.Trust old if it does not.
// One request asks. The others wait for it if they must; else they go on with what is there, unless it is older than Config.Trust.
func (s *Store) fresh(ctx context.Context, wanted time.Duration, must bool) (*snapshot, error) {
	t := &s.table
	old := t.current.Load()
	if old != nil && time.Since(old.read) < wanted {
		return old, nil
	}
	usable := old != nil && time.Since(old.read) < s.cfg.Trust
	if must || !usable {
		t.refresh.Lock()
	} else if !t.refresh.TryLock() {
		return old, nil
	}
	defer t.refresh.Unlock()
	if now := t.current.Load(); now != nil && now != old && time.Since(now.read) < wanted {
		return now, nil // another request asked while this one waited
	}
	if time.Now().UnixNano() < t.next.Load() {
		if usable {
			return old, nil
		}
		return nil, ErrUnavailable
	}
	now, err := s.look(ctx, old)
	if err != nil {
		if ctx.Err() == nil { // not the caller who went away
			t.next.Store(time.Now().Add(retryAfter).UnixNano())
		}
		if usable {
			return old, nil
		}
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	t.current.Store(now)
	return now, nil
}

const (
	lookWithin = time.Second            // a request waits no longer for the keys
	retryAfter = 500 * time.Millisecond // a Redis that is away is asked so often
)

// look asks Redis for the version, and for the keys when that is another one.
func (s *Store) look(ctx context.Context, old *snapshot) (*snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	asked := time.Now()
	version, err := s.rdb.Get(ctx, versionKey).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, err
	}
	if old != nil && old.version == version {
		return &snapshot{version: version, keys: old.keys, read: asked}, nil
	}
	// The version was read first: a change in between is read again next time.
	records, err := s.rdb.HGetAll(ctx, recordsKey).Result()
	if err != nil {
		return nil, err
	}
	now := &snapshot{version: version, keys: make(map[string]*known, len(records)), read: asked}
	for id, value := range records {
		var r record
		if json.Unmarshal([]byte(value), &r) != nil || len(r.SHA256) != sha256.Size {
			continue // no key at all is safer than a broken one; List reports it
		}
		k := &known{key: r.key(id), hash: [sha256.Size]byte(r.SHA256), touched: new(atomic.Int64)}
		if old != nil && old.keys[id] != nil {
			k.touched = old.keys[id].touched
		}
		now.keys[id] = k
	}
	return now, nil
}

const (
	touchEvery  = time.Minute
	touchWithin = 250 * time.Millisecond
)

// touch notes the use of a key in Redis, at most once a minute: a fault costs the note, not the request.
func (s *Store) touch(ctx context.Context, k *known) {
	now, last := time.Now().Unix(), k.touched.Load()
	if now-last < int64(touchEvery/time.Second) || !k.touched.CompareAndSwap(last, now) {
		return
	}
	// The use is a fact even if the caller is gone already.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), touchWithin)
	defer cancel()
	_ = touchScript.Run(ctx, s.rdb, []string{recordsKey, usedKey}, k.key.ID, int64(touchEvery/time.Second)).Err()
}
