package queue

import (
	"context"
	"crypto/sha1" //nolint:gosec // Redis names scripts by SHA-1
	_ "embed"
	"encoding/hex"
	"strings"

	"github.com/redis/go-redis/v9"
)

// script is one Lua file. Its first line asks Redis 7 to run it at maxmemory too (flags=allow-oom), so that a full Redis can
// drain; older servers and the embedded one don't know that line and get the text without it.
type script struct {
	text, sha     string
	plain, plainS string
}

// The parts that several scripts have in common.
var (
	//go:embed shared.lua
	sharedSource string
	//go:embed marks.lua
	marksSource string
	//go:embed leases.lua
	leasesSource string
	//go:embed active.lua
	activeSource string
	//go:embed count.lua
	countSource string
)

// newScript makes a script of one file. The shared ones come before it, after its first line.
func newScript(text string, shared ...string) *script {
	first, plain := "", text
	if strings.HasPrefix(text, "#!") {
		first, plain, _ = strings.Cut(text, "\n")
		first += "\n"
	}
	plain = strings.Join(append(shared, plain), "\n")
	text = first + plain
	return &script{text: text, sha: sha(text), plain: plain, plainS: sha(plain)}
}

func sha(text string) string {
	sum := sha1.Sum([]byte(text)) //nolint:gosec // see the import
	return hex.EncodeToString(sum[:])
}

// name is how Redis knows the script.
func (s *script) name(plain bool) string {
	if plain {
		return s.plainS
	}
	return s.sha
}

// call is one run of a script. Its reply is set by run.
type call struct {
	script *script
	keys   []string
	args   []any
	reply  *redis.Cmd

	unconfirmed *replicationError // see durability.judge
}

// queue makes the call one of a pipeline.
func (c *call) queue(ctx context.Context, p redis.Pipeliner, plain bool) {
	c.reply = p.EvalSha(ctx, c.script.name(plain), c.keys, c.args...)
}

// run sends the calls in one round trip (one for each node of a Cluster). Each has its own reply or error. A script that
// the server doesn't know, or has forgotten, is sent in full; the calls that went through are not sent again.
func (c *Client) run(ctx context.Context, calls ...*call) {
	c.send(ctx, calls, redis.Pipeliner.EvalSha, (*script).name)
	if unknown := refused(calls, isNoScript); len(unknown) > 0 {
		c.sendFull(ctx, unknown)
	}
}

func (c *Client) sendFull(ctx context.Context, calls []*call) {
	text := func(s *script, plain bool) string {
		if plain {
			return s.plain
		}
		return s.text
	}
	plain := c.plain.Load() // another call may find out meanwhile: what counts is what this one has sent
	c.send(ctx, calls, redis.Pipeliner.Eval, text)
	if odd := refused(calls, isSyntaxError); len(odd) > 0 && !plain {
		c.plain.Store(true)
		c.send(ctx, odd, redis.Pipeliner.Eval, text)
	}
}

type eval func(p redis.Pipeliner, ctx context.Context, text string, keys []string, args ...any) *redis.Cmd

func (c *Client) send(ctx context.Context, calls []*call, eval eval, text func(*script, bool) string) {
	plain := c.plain.Load()
	p := c.rdb.Pipeline()
	for _, call := range calls {
		call.reply = eval(p, ctx, text(call.script, plain), call.keys, call.args...)
	}
	confirmed := c.durable.wait(ctx, p, calls)
	_, err := p.Exec(ctx)
	c.durable.judge(calls, confirmed)
	if err != nil {
		for _, call := range calls {
			// A pipeline that was never sent leaves its commands without a word.
			if v, got := call.reply.Result(); v == nil && got == nil {
				call.reply.SetErr(err)
			}
		}
	}
}

func refused(calls []*call, why func(error) bool) []*call {
	var out []*call
	for _, call := range calls {
		if err := call.reply.Err(); err != nil && why(err) {
			out = append(out, call)
		}
	}
	return out
}

func isNoScript(err error) bool { return err != nil && redis.HasErrorPrefix(err, "NOSCRIPT") }

func isSyntaxError(err error) bool {
	return !unanswered(err) && strings.Contains(strings.ToLower(err.Error()), "compil")
}

// do runs one call.
func (c *Client) do(ctx context.Context, s *script, keys []string, args ...any) *redis.Cmd {
	one := &call{script: s, keys: keys, args: args}
	c.run(ctx, one)
	return one.reply
}
