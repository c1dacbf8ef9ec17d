package queue_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

// Whatever its state, a removed job leaves nothing behind, and its lock is free.
func TestRemove(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		locked := func(id string) *wire.Message {
			m := message(id)
			m.UniqueKey = wire.UniqueKey(q, "lock", []byte(id))
			return m
		}
		kept := locked("kept")
		kept.Retention = 3600
		grouped := locked("grouped")
		grouped.GroupKey = "g"
		entries := []queue.Entry{
			{Message: locked("retrying"), UniqueFor: time.Hour},
			{Message: locked("dead"), UniqueFor: time.Hour},
			{Message: kept, UniqueFor: time.Hour},
			{Message: locked("running"), UniqueFor: time.Hour},
		}
		b.store(entries...)
		ends := map[string]func(*queue.Job) queue.End{
			"retrying": func(j *queue.Job) queue.End { return queue.Retry(j, time.Hour, "no") },
			"dead":     func(j *queue.Job) queue.End { return queue.Archive(j, "no") },
			"kept":     func(j *queue.Job) queue.End { return queue.Complete(j, nil) },
		}
		for _, j := range b.fetch(4).Jobs {
			if end := ends[j.Message.ID]; end != nil {
				b.finish(end(j))
			}
		}
		later := []queue.Entry{
			{Message: locked("pending"), UniqueFor: time.Hour},
			{Message: locked("scheduled"), In: time.Hour, UniqueFor: time.Hour},
			{Message: grouped, UniqueFor: time.Hour},
		}
		b.store(later...)
		if _, err := b.client.Look(b.ctx, "channel", queue.Ref{Queue: q, ID: "pending"}); err != nil {
			t.Fatal(err)
		}
		sub := rdb.Subscribe(b.ctx, "channel")
		t.Cleanup(func() { _ = sub.Close() })
		if _, err := sub.Receive(b.ctx); err != nil {
			t.Fatal(err)
		}

		for _, id := range []string{"pending", "scheduled", "grouped", "retrying", "dead", "kept"} {
			ref := queue.Ref{Queue: q, ID: id}
			if err := b.client.Remove(b.ctx, ref); err != nil {
				t.Errorf("%s: %v", id, err)
			}
			if err := b.client.Remove(b.ctx, ref); !errors.Is(err, queue.ErrNoJob) {
				t.Errorf("%s again: %v", id, err)
			}
		}
		if err := b.client.Remove(b.ctx, queue.Ref{Queue: q, ID: "running"}); !errors.Is(err, queue.ErrRuns) {
			t.Errorf("running: %v", err)
		}
		word, err := sub.ReceiveMessage(b.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if e, err := queue.ParseEnding(word.Payload); err != nil || e.Outcome != queue.OutcomeGone || !strings.HasSuffix(e.JobKey, ":pending") {
			t.Errorf("who awaited it was told %+v, %v", e, err)
		}

		left, err := rdb.Keys(b.ctx, "*").Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range left {
			if strings.Contains(key, ":t:") && !strings.HasSuffix(key, ":running") || strings.Contains(key, ":unique:") && !strings.HasSuffix(key, wire.UniqueKey(q, "lock", []byte("running"))) {
				t.Errorf("%s is left", key)
			}
		}
		for _, key := range []string{
			wire.PendingKey(q), wire.ScheduledKey(q), wire.RetryKey(q), wire.ArchivedKey(q), wire.CompletedKey(q), wire.AllGroups(q), wire.DueKey(q), wire.GroupKey(q, "g"),
		} {
			if n, err := rdb.Exists(b.ctx, key).Result(); err != nil || n != 0 {
				t.Errorf("%s is left: %v", key, err)
			}
		}
	})
}
