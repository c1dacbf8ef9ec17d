package keys

import (
	"cmp"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	// ErrUnknown says that there is no such key: never was, is revoked, or the token is not one.
	ErrUnknown = errors.New("the API key is unknown or revoked: make one with gateway keys create")
	// ErrExpired says that the key has ended.
	ErrExpired = errors.New("the API key has expired: make another one with gateway keys create")
	// ErrUnavailable says that Redis has not answered for longer than Config.Trust: who is asking cannot be told.
	ErrUnavailable = errors.New("API keys cannot be checked: Redis does not answer; try again")
	// ErrTooMany says that there are MaxKeys keys.
	ErrTooMany = fmt.Errorf("there are %d API keys, as many as there may be: revoke those not in use", MaxKeys)
)

// MaxKeys is how many keys there may be: every gateway holds all of them in memory.
const MaxKeys = 10_000

// The keys in Redis. One {tag}: scripts use them together.
const (
	recordsKey = "bellhop:{keys}:records" // hash: id -> record
	usedKey    = "bellhop:{keys}:used"    // hash: id -> Unix seconds of the last use
	versionKey = "bellhop:{keys}:version" // a random text, another one after each change
)

var (
	//go:embed create.lua
	createSource string
	//go:embed revoke.lua
	revokeSource string
	//go:embed touch.lua
	touchSource string

	createScript = redis.NewScript(createSource)
	revokeScript = redis.NewScript(revokeSource)
	touchScript  = redis.NewScript(touchSource)
)

// Store is the API keys in Redis, and this process' copy of them.
type Store struct {
	rdb   redis.UniversalClient
	cfg   Config
	table table
}

// NewStore returns the keys in rdb. It calls Redis when it is used first.
func NewStore(rdb redis.UniversalClient, cfg Config) *Store {
	return &Store{rdb: rdb, cfg: cfg.WithDefaults()}
}

// record is a key as it is stored.
type record struct {
	Name    string  `json:"name"`
	Scopes  []Scope `json:"scopes"`
	Created int64   `json:"created"` // Unix milliseconds
	Expires int64   `json:"expires,omitzero"`
	Rate    float64 `json:"rate,omitzero"`
	SHA256  []byte  `json:"sha256"` // of the token
}

func (r record) key(id string) Key {
	return Key{ID: id, Name: r.Name, Scopes: r.Scopes, Created: fromMillis(r.Created), Expires: fromMillis(r.Expires), Rate: r.Rate}
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// Create makes a key with the name, scopes, end and rate of k, and returns its token, which nobody can find out again.
// All gateways accept it within a second or so. The error tells every fault of k, or is ErrTooMany.
func (s *Store) Create(ctx context.Context, k Key) (string, Key, error) {
	now := time.Now()
	if err := k.validate(now); err != nil {
		return "", Key{}, err
	}
	scopes, _ := cleanScopes(k.Scopes)
	text, token := newToken()
	r := record{Name: k.Name, Scopes: scopes, Created: now.UnixMilli(), Rate: k.Rate, SHA256: token.hash[:]}
	if !k.Expires.IsZero() {
		r.Expires = k.Expires.UnixMilli()
	}
	value, err := json.Marshal(r)
	if err != nil {
		return "", Key{}, fmt.Errorf("encode API key: %w", err)
	}
	stored, err := createScript.Run(ctx, s.rdb, []string{recordsKey, versionKey}, token.id, value, rand.Text(), MaxKeys).Int()
	switch {
	case err != nil:
		return "", Key{}, fmt.Errorf("store API key: %w", err)
	case stored < 0:
		return "", Key{}, ErrTooMany
	case stored == 0:
		return "", Key{}, fmt.Errorf("store API key: id %s is taken; try again", token.id)
	}
	s.table.outdate()
	return text, r.key(token.id), nil
}

// List returns the keys, the oldest first, with their last use.
func (s *Store) List(ctx context.Context) ([]Key, error) {
	pipe := s.rdb.Pipeline()
	records, used := pipe.HGetAll(ctx, recordsKey), pipe.HGetAll(ctx, usedKey)
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("list API keys: %w", err)
	}
	list := make([]Key, 0, len(records.Val()))
	for id, value := range records.Val() {
		var r record
		if err := json.Unmarshal([]byte(value), &r); err != nil {
			return nil, fmt.Errorf("list API keys: the record of %s cannot be read: %w; revoke it", id, err)
		}
		k := r.key(id)
		if seconds, err := strconv.ParseInt(used.Val()[id], 10, 64); err == nil {
			k.LastUsed = time.Unix(seconds, 0).UTC()
		}
		list = append(list, k)
	}
	slices.SortFunc(list, func(a, b Key) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return list, nil
}

// Revoke removes a key for good. Every gateway refuses it within Config.Refresh, and one that cannot reach Redis within
// Config.Trust. ErrUnknown if there is none.
func (s *Store) Revoke(ctx context.Context, id string) error {
	removed, err := revokeScript.Run(ctx, s.rdb, []string{recordsKey, versionKey, usedKey}, id, rand.Text()).Int()
	if err != nil {
		return fmt.Errorf("revoke API key: %w", err)
	}
	s.table.outdate()
	if removed == 0 {
		return fmt.Errorf("revoke API key %q: %w", id, ErrNotFound)
	}
	return nil
}

// ErrNotFound says that no key has this id.
var ErrNotFound = errors.New("no key has this id: see gateway keys list")
