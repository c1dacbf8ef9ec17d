package queue_test

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

// recorder keeps what a client sends, for a network that delivers it once more.
type recorder struct{ sent [][]any }

func (r *recorder) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (r *recorder) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (r *recorder) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			r.sent = append(r.sent, slices.Clone(cmd.Args()))
		}
		return next(ctx, cmds)
	}
}

// A request whose copy arrives after the next one, when its jobs have long run, changes nothing.
func TestStaleCopiesChangeNothing(t *testing.T) {
	t.Parallel()
	rec := new(recorder)
	server, rdb := hooked(t, rec)
	b := setup(t, rdb)
	for _, id := range []string{"a", "b"} {
		b.enqueue(id)
		b.finish(queue.Done(b.take()))
	}
	b.fetch(1)
	admin := server.Admin()
	before := admin.Get(b.ctx, wire.ProcessedTotalKey(q)).Val()
	copies := rec.sent
	stale := 0
	for _, args := range copies {
		answer, err := admin.Do(b.ctx, args...).Result()
		if err != nil && strings.HasPrefix(err.Error(), "STALE") || err == nil && answer == int64(0) {
			stale++
		}
	}
	b.atRest()
	if n := admin.Exists(b.ctx, wire.JobKey(q, "a"), wire.JobKey(q, "b"), wire.PendingKey(q)).Val(); n != 0 || stale < 4 {
		t.Errorf("a stale copy stored or kept a job again; %d copies were refused as stale", stale)
	}
	if after := admin.Get(b.ctx, wire.ProcessedTotalKey(q)).Val(); after != before {
		t.Errorf("processed went from %s to %s", before, after)
	}
}

// A request whose answer was lost keeps its number, also when its caller has gone: the next one's jobs would count as its own, answered as
// stored and nowhere to be found.
func TestALostAnswerKeepsItsNumber(t *testing.T) {
	t.Parallel()
	lossy := new(dropper)
	_, rdb := hooked(t, lossy)
	b := setup(t, rdb)
	b.enqueue("first")
	two := func(id string) []queue.Entry {
		elsewhere := message(id)
		elsewhere.Queue = "other"
		return []queue.Entry{{Message: message(id)}, {Message: elsewhere}}
	}
	for name, entries := range map[string]func(id string) []queue.Entry{
		"alone":     func(id string) []queue.Entry { return two(id)[:1] },
		"of a call": two,
	} {
		ctx, leave := context.WithCancel(b.ctx)
		lossy.then = leave
		lossy.drop.Store(true)
		b.client.Enqueue(ctx, entries(name+"-lost"))
		next := entries(name + "-next")
		for i, s := range b.client.Enqueue(b.ctx, next) {
			m := next[i].Message
			if stored := rdb.Exists(b.ctx, wire.JobKey(m.Queue, m.ID)).Val() == 1; s.Err != nil || !stored {
				t.Errorf("%s: %+v, and stored is %v", name, s, stored)
			}
		}
	}
}
