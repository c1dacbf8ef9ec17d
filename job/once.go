package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"
)

// Once guards the effects of handlers that should take place once: a charge, a letter. A job may run twice, after a crash or a lost
// answer; Once keeps in Redis which effects have taken place.
//
// What it guarantees: of all runs under one key, at most one runs its effect at a time, as long as the holder renews its lease;
// and once an effect has returned nil and that is kept, none runs it again for OnceConfig.Keep.
//
// What it can't: between the effect and the word of it to Redis there is a window. A process that dies in it, or stands still for
// longer than the lease, leaves an effect that nobody knows of, and the next run does it again. So does the next run after an effect that
// took place but returned an error, and after a failover of Redis that lost the word. Only two things close the window: an API that
// takes an idempotency key (hand it IdempotencyKey), or your own transaction, which stores that key together with the effect. Once
// beside them saves the call, and OnceFence tells whether there may be an effect to look for.
type Once struct {
	rdb   redis.UniversalClient
	cfg   OnceConfig
	plain atomic.Bool // the server doesn't know the first line of the scripts
}

// OnceConfig sets the times of a Once. Its zero value has the defaults.
type OnceConfig struct {
	// Lease is how long a key stays with a run that says nothing: its process has died, or stands still. It is renewed while the
	// effect runs. At least 100ms; default 10s.
	Lease time.Duration `mapstructure:"lease"`

	// Keep is how long it is remembered that an effect has taken place, with its result. It should be longer than a job may be
	// retried or run again by hand. At least Lease; default 7 days.
	Keep time.Duration `mapstructure:"keep"`
}

// The defaults and bounds of OnceConfig.
const (
	DefaultOnceLease = 10 * time.Second
	DefaultOnceKeep  = 7 * 24 * time.Hour
	minOnceLease     = 100 * time.Millisecond
)

// WithDefaults fills in what is zero.
func (c OnceConfig) WithDefaults() OnceConfig {
	if c.Lease == 0 {
		c.Lease = DefaultOnceLease
	}
	if c.Keep == 0 {
		c.Keep = DefaultOnceKeep
	}
	return c
}

// Validate reports every fault at once.
func (c OnceConfig) Validate() error {
	c = c.WithDefaults()
	var faults []error
	if c.Lease < minOnceLease {
		faults = append(faults, fmt.Errorf("once: lease is %v, the least is %v: below, a slow answer of Redis loses the key", c.Lease, minOnceLease))
	}
	if c.Keep < c.Lease {
		faults = append(faults, fmt.Errorf("once: keep is %v, shorter than the lease of %v: raise it above the time in which a job may run again", c.Keep, c.Lease))
	}
	return errors.Join(faults...)
}

// NewOnce returns a guard over rdb, which stays the caller's to close. Guards over one Redis share their keys.
func NewOnce(rdb redis.UniversalClient, cfg OnceConfig) (*Once, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Once{rdb: rdb, cfg: cfg.WithDefaults()}, nil
}

var (
	// ErrOnceBusy tells that another run holds the key. Returned by a handler it puts the job off, as Snooze does, and spends no
	// attempt.
	ErrOnceBusy = errors.New("another run of this effect goes on")

	// ErrOnceLost tells that an effect may take place twice: the run's lease ended and another one took the key, or Redis could
	// not be told that it took place. Returned by a handler it is a failure; the next attempt finds what is kept.
	ErrOnceLost = errors.New("the effect may take place twice")
)

// onceBusyPause bounds the snooze of a job whose key is held: the holder may be done long before its lease ends.
const onceBusyPause = time.Second

type onceBusyError struct {
	key  string
	left time.Duration
}

func (e *onceBusyError) Error() string { return fmt.Sprintf("once %q: %v", e.key, ErrOnceBusy) }

func (e *onceBusyError) Unwrap() []error {
	return []error{ErrOnceBusy, Snooze(min(e.left+time.Millisecond, onceBusyPause))}
}

// Do runs the effect, unless it has taken place under this key: then it returns nil at once. While another run holds the key it returns
// ErrOnceBusy, which a handler passes on. An error of the effect is returned as it is, and lets the next run do it again.
//
// The effect's context ends, with the cause ErrOnceLost, if its key is lost; and with ctx.
func (o *Once) Do(ctx context.Context, key string, effect func(ctx context.Context) error) error {
	_, _, err := o.do(ctx, key, func(ctx context.Context) ([]byte, error) { return nil, effect(ctx) })
	return err
}

// OnceValue is Do for an effect with a value, which is kept as JSON (at most MaxResultBytes; []byte and json.RawMessage as they are)
// and returned to those that find the effect done. A value that can't be kept is returned with an error, and the effect counts as done. With
// ErrOnceLost the value is returned, if the effect has run.
func OnceValue[T any](ctx context.Context, o *Once, key string, effect func(ctx context.Context) (T, error)) (T, error) {
	var value T
	var unkept error
	kept, ran, err := o.do(ctx, key, func(ctx context.Context) (data []byte, err error) {
		if value, err = effect(ctx); err != nil {
			return nil, err
		}
		data, unkept = onceResult(key, value)
		return data, nil
	})
	if ran || err != nil {
		return value, errors.Join(err, unkept)
	}
	return onceValue[T](key, kept)
}

func onceResult(key string, value any) ([]byte, error) {
	data, err := encodeResult(value)
	switch {
	case err != nil:
		return nil, fmt.Errorf("once %q: the effect is done, its value can't be kept: %w", key, err)
	case len(data) > MaxResultBytes:
		return nil, fmt.Errorf("once %q: the effect is done, its value can't be kept: it has %d bytes, the most is %d: keep a reference", key, len(data), MaxResultBytes)
	case data == nil:
		data = []byte{} // a value, though an empty one
	}
	return data, nil
}

func onceValue[T any](key string, kept []byte) (value T, err error) {
	if kept == nil {
		return value, fmt.Errorf("once %q: the effect is done, but no value was kept", key)
	}
	switch v := any(&value).(type) {
	case *[]byte:
		*v = kept
	case *json.RawMessage:
		*v = kept
	default:
		if err := json.Unmarshal(kept, &value); err != nil {
			return value, fmt.Errorf("once %q: the effect is done, its value is not a %T: %w", key, value, err)
		}
	}
	return value, nil
}

func (o *Once) do(ctx context.Context, key string, effect func(ctx context.Context) ([]byte, error)) (result []byte, ran bool, err error) {
	if err := checkOnceKey(key); err != nil {
		return nil, false, err
	}
	h := newOnceHold(o, key)
	claim, err := h.claim(ctx)
	switch {
	case err != nil:
		return nil, false, fmt.Errorf("once %q: take the key: %w", key, err)
	case claim.done:
		return claim.result, false, nil
	case !claim.taken:
		return nil, false, &onceBusyError{key: key, left: claim.left}
	}
	result, err = h.run(ctx, effect)
	return result, true, err
}

const maxOnceKeyBytes = 1024

func checkOnceKey(key string) error {
	switch {
	case strings.TrimSpace(key) == "":
		return errors.New("once: the key is empty: name the effect, or take IdempotencyKey")
	case len(key) > maxOnceKeyBytes:
		return fmt.Errorf("once: the key has %d bytes, the most is %d", len(key), maxOnceKeyBytes)
	case !utf8.ValidString(key), strings.ContainsFunc(key, unicode.IsControl):
		return fmt.Errorf("once: the key %q has bytes that are not text", key)
	}
	return nil
}

type onceFence struct{}

// OnceFence counts the runs that began under a key, in an effect's context: 1 in the first. Above 1 an earlier one failed, or ended
// without a word: ask the other side whether its effect took place before you do it again. What stores the number with the effect can
// refuse a lower one. It is 0 outside of an effect.
func OnceFence(ctx context.Context) int64 {
	fence, _ := ctx.Value(onceFence{}).(int64)
	return fence
}

// IdempotencyKey is a key of the job that a handler runs, the same in all its attempts: for an external API, for Once, or for a unique
// column of your own table. A handler with several effects names each of them. Jobs that share queue and id share the key.
//
// It is text without white space: queue, id and names, each escaped as in a URL's query, joined by colons. It fails outside of a handler, for an empty
// key would be everybody's.
func IdempotencyKey(ctx context.Context, effect ...string) (string, error) {
	j, ok := FromContext(ctx)
	if !ok || j.ID == "" {
		return "", errors.New("idempotency key: no job in the context: call it in a handler, with the handler's context")
	}
	parts := append([]string{j.Queue, j.ID}, effect...)
	for i, part := range parts {
		parts[i] = url.QueryEscape(part)
	}
	return strings.Join(parts, ":"), nil
}
