// Package lua runs scripts that a full Redis must run too.
package lua

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// Script is a Lua file, and the same without its first line, flags=allow-oom. That line lets it run on a full Redis; the embedded one does
// not know it.
type Script struct{ full, plain *redis.Script }

// New makes a script of a file that begins with such a line.
func New(text string) Script {
	_, plain, _ := strings.Cut(text, "\n")
	return Script{full: redis.NewScript(text), plain: redis.NewScript(plain)}
}

// Run runs the script. plain remembers, for all scripts of one client, that its Redis does not know the first line.
func (s Script) Run(ctx context.Context, rdb redis.Scripter, plain *atomic.Bool, keys []string, args ...any) *redis.Cmd {
	if !plain.Load() {
		reply := s.full.Run(ctx, rdb, keys, args...)
		var refused redis.Error
		if err := reply.Err(); !errors.As(err, &refused) || !strings.Contains(strings.ToLower(refused.Error()), "compil") {
			return reply
		}
		plain.Store(true)
	}
	return s.plain.Run(ctx, rdb, keys, args...)
}
