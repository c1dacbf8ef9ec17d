package queue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

// Plain jobs share commands; an id that is taken, before or within the batch, decides for itself alone, and so does a job that isn't plain.
func TestABatchOfAllKindsIsAnsweredOneByOne(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		b.enqueue("there")
		plain := func(id string) queue.Entry { return queue.Entry{Message: message(id)} }
		unique := func(id string) queue.Entry {
			m := message(id)
			m.UniqueKey = wire.UniqueKey(q, "mail:send", []byte("one"))
			return queue.Entry{Message: m, UniqueFor: time.Hour}
		}
		entries := []queue.Entry{
			plain("a"), plain("b"), plain("there"), plain("a"), unique("u"), plain("c"), unique("v"), plain("u"),
			{Message: message("s"), In: time.Hour},
			plain("s"), plain("d"),
		}
		want := []string{"pending", "pending", "there", "a", "pending", "pending", "u", "u", "scheduled", "s", "pending"}
		var got []string
		for _, s := range b.client.Enqueue(b.ctx, entries) {
			switch {
			case s.Err == nil:
				got = append(got, string(s.State))
			case errors.Is(s.Err, queue.ErrIDTaken) || errors.Is(s.Err, queue.ErrNotUnique):
				got = append(got, s.Holder)
			default:
				t.Error(s.Err)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"there", "a", "b", "u", "c", "d"}, line(b)); diff != "" {
			t.Errorf("the line: %s", diff)
		}
	})
}

// A batch of nothing but plain jobs, too, tells which ids are taken.
func TestAPlainBatchTellsWhatIsTaken(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		b.enqueue("there")
		var entries []queue.Entry
		for _, id := range []string{"a", "there", "b", "a", "c"} {
			entries = append(entries, queue.Entry{Message: message(id)})
		}
		taken := []string{"", "there", "", "a", ""}
		for i, s := range b.client.Enqueue(b.ctx, entries) {
			if s.Holder != taken[i] || (s.Err == nil) != (taken[i] == "") {
				t.Errorf("entry %d: %+v", i, s)
			}
		}
		if diff := cmp.Diff([]string{"there", "a", "b", "c"}, line(b)); diff != "" {
			t.Errorf("the line: %s", diff)
		}
	})
}

// Redis stores the first entries while the next ones are made, in one message. Those that are made after the context's end are not sent.
func TestEntriesAreSentWhileOthersAreMade(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		ctx, cancel := context.WithCancel(b.ctx)
		defer cancel()
		const n, bad, gone = 100, 3, 60
		odd := errors.New("can't be made")
		m := message("")
		stored := 0
		answers := b.client.EnqueueEach(ctx, n, func(i int) (queue.Entry, error) {
			switch i {
			case bad:
				return queue.Entry{}, odd
			case gone:
				eventually(t, "the first jobs are stored", func() bool { return len(b.pending()) > 0 })
				stored = len(b.pending())
				cancel()
			}
			m.ID = fmt.Sprint("job-", i)
			return queue.Entry{Message: m}, nil
		})
		for i, s := range answers {
			switch {
			case i == bad && errors.Is(s.Err, odd), errors.Is(s.Err, context.Canceled), i < gone && s.State == queue.Pending && s.Err == nil:
			default:
				t.Errorf("entry %d: %+v", i, s)
			}
		}
		if n := len(b.pending()); n != stored {
			t.Errorf("%d jobs were stored before the context ended, now they are %d", stored, n)
		}
		for i, id := range line(b) {
			if i >= bad {
				i++
			}
			if id != fmt.Sprint("job-", i) {
				t.Errorf("%s stands where job-%d should", id, i)
			}
		}
	})
}

// A batch of plain jobs that can't be pushed leaves no hash: its ids would be taken by jobs that never run.
func TestJobsThatCantBePushedLeaveNothing(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		rdb.Set(b.ctx, wire.PendingKey(q), "no list", 0)
		entries := []queue.Entry{{Message: message("a")}, {Message: message("b")}}
		for _, some := range [][]queue.Entry{entries, entries[:1], entries[1:]} {
			for _, s := range b.client.Enqueue(b.ctx, some) {
				if s.Err == nil {
					t.Error("stored where there is no list")
				}
			}
			if n := rdb.Exists(b.ctx, wire.JobKey(q, "a"), wire.JobKey(q, "b")).Val(); n != 0 {
				t.Errorf("%d hashes are left", n)
			}
		}
		rdb.Del(b.ctx, wire.PendingKey(q))
		b.enqueue("a") // nothing says that it was sent
		b.finish(queue.Done(b.take()))
	})
}

func TestManyEntriesKeepTheirOrder(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		const n = 2500
		entries, want := make([]queue.Entry, n), make([]string, n)
		for i := range entries {
			want[i] = fmt.Sprint("job-", i)
			entries[i] = queue.Entry{Message: message(want[i])}
		}
		b.store(entries...)
		if diff := cmp.Diff(want, line(b)); diff != "" {
			t.Error(diff)
		}
	})
}

// line are the pending jobs, the next one first.
func line(b *bundle) []string {
	ids := b.pending()
	slices.Reverse(ids)
	return ids
}
