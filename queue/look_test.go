package queue_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

func FuzzParseEnding(f *testing.F) {
	f.Add("completed 3 1 key==x")
	f.Add("dead 0 0 ")
	f.Add("gone 9999999999999999999 -1 k")
	f.Add("completed 3 2 key#9#12")
	f.Fuzz(func(t *testing.T, text string) {
		e, err := queue.ParseEnding(text)
		if err == nil && len(e.JobKey)+len(e.Result) > len(text) {
			t.Errorf("%q: more was read than was told: %+v", text, e)
		}
	})
}

// The ends of jobs that nobody awaits are told to nobody, and those of marked jobs once to each channel.
func TestEndsAreToldToWhoAwaitsThem(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		for _, id := range []string{"done", "told", "complete", "archive", "cancel", "retry", "back", "nobody"} {
			m := message(id)
			if id == "complete" {
				m.Retention = 60
			}
			b.store(queue.Entry{Message: m})
		}
		here := rdb.Subscribe(b.ctx, "here", "there")
		defer func() { _ = here.Close() }()
		for range 2 {
			if _, err := here.Receive(b.ctx); err != nil {
				t.Fatal(err)
			}
		}
		words := here.Channel()
		refs := func(ids ...string) (refs []queue.Ref) {
			for _, id := range ids {
				refs = append(refs, queue.Ref{Queue: q, ID: id})
			}
			return refs
		}
		for _, channel := range []string{"here", "there", "here"} {
			got, err := b.client.Look(b.ctx, channel, refs("done", "told", "complete", "archive", "cancel", "retry", "back", "none")...)
			if err != nil || got[0].State != "pending" || got[0].Message.ID != "done" || got[7].State != "" {
				t.Fatalf("%+v, %v", got, err)
			}
		}
		if err := b.client.Forgo(b.ctx, "there", refs("told", "complete", "archive", "cancel", "retry", "back", "none")...); err != nil {
			t.Fatal(err)
		}
		jobs := map[string]*queue.Job{}
		for _, j := range b.fetch(8).Jobs {
			jobs[j.ID] = j
		}
		b.finish(queue.Done(jobs["done"]), queue.Complete(jobs["told"], []byte("result")), queue.Complete(jobs["complete"], []byte("kept")),
			queue.Archive(jobs["archive"], "why"), queue.Cancel(jobs["cancel"]), queue.Retry(jobs["retry"], time.Hour, "again"),
			queue.HandBack(jobs["back"]), queue.Done(jobs["nobody"]))
		want := map[string]string{
			"here done": "completed/", "there done": "completed/", "here told": "completed/result", "here complete": "completed/kept",
			"here archive": "dead/", "here cancel": "dead/",
		}
		for range len(want) {
			select {
			case word := <-words:
				e, err := queue.ParseEnding(word.Payload)
				if err != nil || e.Message == nil || e.JobKey != wire.JobKey(q, e.Message.ID) {
					t.Fatalf("%q: %+v, %v", word.Payload, e, err)
				}
				at := word.Channel + " " + e.Message.ID
				if got := string(e.Outcome) + "/" + string(e.Result); got != want[at] {
					t.Errorf("%s: told %q, want %q", at, got, want[at])
				}
				delete(want, at)
			case <-time.After(10 * time.Second):
				t.Fatalf("not told: %v", want)
			}
		}
		if left := rdb.HKeys(b.ctx, wire.AwaitedKey(q)).Val(); len(left) != 2 {
			t.Errorf("marks are left on %v, want those of the two jobs that have not ended", left)
		}
		if ttl := rdb.TTL(b.ctx, wire.AwaitedKey(q)).Val(); ttl <= 0 || ttl > queue.MarkTime {
			t.Errorf("the marks last for %v", ttl)
		}
	})
}
