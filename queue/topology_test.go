package queue_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

// One life through every script, on each kind of Redis: the keys of a script must share a slot, and blocked connections must
// find their node.
func TestEveryScriptRunsOnClusterAndSentinel(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T) redis.UniversalClient{
		"cluster":  func(t *testing.T) redis.UniversalClient { return redistest.Cluster(t).Client() },
		"sentinel": func(t *testing.T) redis.UniversalClient { return redistest.Sentinel(t).Client() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := queue.New(open(t))
			queues := []string{"a", "b", "c", "d"}
			w, err := client.NewWorker("w", queues...)
			if err != nil {
				t.Fatal(err)
			}
			waiter, err := w.Waiter(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, beat := range w.Beat(t.Context()) {
				if beat.Err != nil {
					t.Fatal(beat.Err)
				}
			}
			for _, name := range queues {
				lone(t, client, w, waiter, name)
				live(t, client, w, name, waiting(waiter, name, always))
			}
			if err := w.Leave(t.Context()); err != nil {
				t.Error(err)
			}
			if err := waiter.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// lone is a job that comes to the waiting worker with the push itself.
func lone(t *testing.T, client *queue.Client, w *queue.Worker, waiter *queue.Waiter, name string) {
	t.Helper()
	ctx := t.Context()
	if got, err := w.Fetch(ctx, name, 1); err != nil || len(got.Jobs) > 0 { // nothing, but the worker has a number
		t.Fatal(got, err)
	}
	done := waiting(waiter, name, always)
	if s := client.EnqueueOne(ctx, queue.Entry{Message: &wire.Message{Type: "mail:send", ID: "lone", Queue: name}}); s.Err != nil {
		t.Fatal(s.Err)
	}
	woken := within(t, "brought", done)
	if woken.err != nil || len(woken.Jobs) != 1 || woken.Jobs[0].ID != "lone" {
		t.Fatalf("queue %s: %+v", name, woken)
	}
	if err := w.Finish(ctx, queue.Done(woken.Jobs[0]))[0]; err != nil {
		t.Error(err)
	}
}

func live(t *testing.T, client *queue.Client, w *queue.Worker, name string, woken <-chan wake) {
	t.Helper()
	ctx := t.Context()
	entry := func(id string) queue.Entry {
		m := &wire.Message{Type: "mail:send", ID: id, Queue: name, Payload: []byte(id), Retry: 3, Retention: 60}
		m.UniqueKey = wire.UniqueKey(name, m.Type, m.Payload)
		return queue.Entry{Message: m, UniqueFor: time.Hour}
	}
	later, grouped := entry("later"), entry("grouped")
	later.At = time.Now().Add(time.Hour)
	grouped.Message.GroupKey = "g"
	for _, s := range client.Enqueue(ctx, []queue.Entry{
		entry("done"), entry("complete"), entry("retry"), entry("archive"), entry("back"), entry("snooze"), later, grouped,
	}) {
		if s.Err != nil {
			t.Fatal(s.Err)
		}
	}
	first := within(t, "woken", woken)
	if first.err != nil {
		t.Fatal(first.err)
	}
	got, err := w.Fetch(ctx, name, 10)
	j := append(first.Jobs, got.Jobs...)
	if err != nil || len(j) != 6 {
		t.Fatal(len(j), err)
	}
	for _, err := range w.Finish(ctx, queue.Done(j[0]), queue.Complete(j[1], []byte("x")), queue.Retry(j[2], 0, "boom"),
		queue.Archive(j[3], "dead"), queue.HandBack(j[4]), queue.Snooze(j[5], time.Millisecond)) {
		if err != nil {
			t.Error(err)
		}
	}
	moved := 0
	eventually(t, "the retry and the snooze are due", func() bool {
		d, err := client.Due(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		moved += d.Moved
		return moved == 2
	})
	if got, err := w.Fetch(ctx, name, 10); err != nil || len(got.Jobs) != 3 {
		t.Error(got, err)
	}
	beats, err := client.Beats(ctx, name)
	if err != nil || len(beats) != 1 {
		t.Fatal(beats, err)
	}
	if back, alive, err := client.Reap(ctx, name, beats[0], 3); err != nil || alive || len(back) != 3 {
		t.Error(back, alive, err)
	}
	if _, err := client.Clean(ctx, name); err != nil {
		t.Error(err)
	}
	sets, err := client.Aggregate(ctx, name, queue.Grouping{MaxSize: 1})
	if err != nil || len(sets) != 1 {
		t.Fatal(sets, err)
	}
	if err := client.ReadSet(ctx, &sets[0]); err != nil || len(sets[0].Messages) != 1 {
		t.Error(sets[0], err)
	}
	if ok, err := client.DropSet(ctx, &sets[0]); err != nil || !ok {
		t.Error(ok, err)
	}
}
