package job

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/lua"
)

const oncePrefix = "bellhop:once:"

// onceHold is one run's hold of a key.
type onceHold struct {
	once   *Once
	name   string
	keys   []string
	owner  string
	fence  int64
	said   time.Time // before the last request that Redis granted was sent
	lease  time.Duration
	keepMS int64
}

func newOnceHold(o *Once, key string) *onceHold {
	return &onceHold{
		once: o, name: key, keys: []string{oncePrefix + key}, owner: uuid.NewString(),
		lease: o.cfg.Lease, keepMS: o.cfg.Keep.Milliseconds(),
	}
}

// onceClaim is the answer to a claim: taken, done, or neither for so long yet.
type onceClaim struct {
	taken  bool
	done   bool
	left   time.Duration
	result []byte // nil if none was kept
}

func (h *onceHold) claim(ctx context.Context) (onceClaim, error) {
	h.said = time.Now()
	reply, err := h.once.eval(ctx, onceClaimScript, h.keys, h.owner, h.lease.Milliseconds(), h.keepMS).Slice()
	if err != nil {
		return onceClaim{}, err
	}
	switch {
	case len(reply) == 1 && reply[0] == int64(2):
		return onceClaim{done: true}, nil
	case len(reply) == 2 && reply[0] == int64(2):
		if text, ok := reply[1].(string); ok {
			return onceClaim{done: true, result: []byte(text)}, nil
		}
	case len(reply) == 2:
		if n, ok := reply[1].(int64); ok {
			if reply[0] == int64(1) {
				h.fence = n
				return onceClaim{taken: true}, nil
			}
			return onceClaim{left: time.Duration(n) * time.Millisecond}, nil
		}
	}
	return onceClaim{}, fmt.Errorf("unexpected answer %v", reply)
}

// run runs the effect while it keeps the key, and tells Redis how it ended; a panic goes on.
func (h *onceHold) run(ctx context.Context, effect func(ctx context.Context) ([]byte, error)) ([]byte, error) {
	held, stop := h.keep(context.WithValue(ctx, onceFence{}, h.fence))
	tookPlace := false
	defer func() {
		stop()
		if !tookPlace {
			h.release(ctx)
		}
	}()
	result, err := effect(held)
	if err != nil {
		if cause := context.Cause(held); errors.Is(cause, ErrOnceLost) {
			return nil, fmt.Errorf("once %q: %w: %w", h.name, cause, err)
		}
		return nil, err
	}
	tookPlace = true
	return result, h.finish(ctx, result)
}

// keep renews the lease until stop. The context that it returns ends when the key is lost.
func (h *onceHold) keep(ctx context.Context) (held context.Context, stop func()) {
	held, lose := context.WithCancelCause(ctx)
	// A cancelled effect that has not returned yet still needs its key.
	renewing, end := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := h.renew(renewing); err != nil {
			lose(err)
		}
	}()
	return held, func() {
		end()
		<-ended
		lose(nil)
	}
}

// renew returns an error once the key is lost, nil at the end of ctx.
func (h *onceHold) renew(ctx context.Context) error {
	every := time.NewTicker(h.lease / 3)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-every.C:
		}
		sent := time.Now()
		mine, err := h.say(ctx, h.lease/3, onceRenewScript, h.lease.Milliseconds(), h.keepMS)
		switch {
		case err == nil && mine:
			h.said = sent
		case err == nil:
			return fmt.Errorf("%w: another run took the key", ErrOnceLost)
		case ctx.Err() != nil:
			return nil
		case time.Since(h.said) >= h.lease:
			return fmt.Errorf("%w: the lease could not be renewed: %w", ErrOnceLost, err)
		}
	}
}

// finish keeps that the effect took place. It tries for one more lease, though ctx may have ended: the effect can't be taken back.
func (h *onceHold) finish(ctx context.Context, result []byte) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.lease)
	defer cancel()
	args := []any{h.fence, h.keepMS}
	if result != nil {
		args = append(args, result)
	}
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		mine, err := h.say(ctx, h.lease, onceFinishScript, args...)
		switch {
		case err == nil && mine:
			return nil
		case err == nil:
			return fmt.Errorf("once %q: %w: another run took the key when the lease had ended: "+
				"give the guard a longer lease than the process may stand still", h.name, ErrOnceLost)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("once %q: %w: it took place, but Redis could not be told: %w", h.name, ErrOnceLost, err)
		case <-time.After(pause):
		}
	}
}

// release gives the key back, though ctx may have ended. Where that fails the end of the lease does it.
func (h *onceHold) release(ctx context.Context) {
	_, _ = h.say(context.WithoutCancel(ctx), h.lease, onceReleaseScript, h.keepMS)
}

// say runs one of the scripts that the owner alone may run, and returns whether it still is that.
func (h *onceHold) say(ctx context.Context, within time.Duration, s lua.Script, args ...any) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return h.once.eval(ctx, s, h.keys, append([]any{h.owner}, args...)...).Bool()
}

var (
	//go:embed once_claim.lua
	onceClaimSource string
	//go:embed once_renew.lua
	onceRenewSource string
	//go:embed once_finish.lua
	onceFinishSource string
	//go:embed once_release.lua
	onceReleaseSource string

	onceClaimScript   = lua.New(onceClaimSource)
	onceRenewScript   = lua.New(onceRenewSource)
	onceFinishScript  = lua.New(onceFinishSource)
	onceReleaseScript = lua.New(onceReleaseSource)
)

func (o *Once) eval(ctx context.Context, s lua.Script, keys []string, args ...any) *redis.Cmd {
	return s.Run(ctx, o.rdb, &o.plain, keys, args...)
}
