package queue_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

// reaping runs the worker's reaper until the test ends.
func (b *bundle) reaping(w *queue.Worker) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.ctx)
	var wg sync.WaitGroup
	wg.Go(func() { w.Reaper(3).Run(ctx, func(queue.Reaping) {}) })
	b.t.Cleanup(func() { cancel(); wg.Wait() })
	eventually(b.t, w.ID()+" is heard of", func() bool {
		channel := wire.AliveChannel(w.ID())
		return b.rdb.PubSubNumSub(b.ctx, channel).Val()[channel] == 1
	})
}

// The keeper's leave calls another worker, whose next beat was seconds away: due jobs don't wait for it.
func TestTheKeepingIsHandedOver(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(b *bundle){
		"a clean stop": func(b *bundle) {
			if err := b.worker.Leave(b.ctx); err != nil {
				b.t.Fatal(err)
			}
		},
		"a death": func(*bundle) {}, // it beats no more
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
				b := setup(t, rdb)
				if beats := b.worker.Beat(b.ctx); !beats[0].Keeper {
					t.Fatal("the first worker does not keep the queue")
				}
				heir := b.other("heir")
				if beats := heir.Beat(b.ctx); beats[0].Keeper {
					t.Fatal("two keep the queue")
				}
				if beats := heir.Beat(b.ctx); len(beats) != 0 {
					t.Fatalf("an idle worker beat again at once: %+v", beats)
				}
				b.reaping(heir)
				leave(b)
				select {
				case <-heir.Called():
				case <-time.After(20 * time.Second):
					t.Fatal("nobody is called to keep the queue")
				}
				if beats := heir.Beat(b.ctx); len(beats) != 1 || !beats[0].Keeper {
					t.Errorf("after the call: %+v", beats)
				}
			})
		})
	}
}

// Who has lost the keeping still stands in line for alarms, and leaves them to the next keeper.
func TestAnAlarmIsNotLostWithTheKeeping(t *testing.T) {
	t.Parallel()
	redistest.Each(t, func(t *testing.T, rdb redis.UniversalClient) {
		b := setup(t, rdb)
		waiter := b.waiter(b.ctx, b.worker)
		ctx, cancel := context.WithCancel(b.ctx)
		var wg sync.WaitGroup
		wg.Go(func() { waiter.Keep(ctx, q, func(queue.Kept) {}) })
		b.schedule("far", b.now().Add(time.Hour))
		eventually(t, "the keeper took the alarm", func() bool { return rdb.Exists(b.ctx, wire.AlarmKey(q)).Val() == 0 })
		cancel()
		wg.Wait()

		next := b.waiter(b.ctx, b.other("next"))
		keeping, stop := context.WithCancel(b.ctx)
		moved := make(chan queue.Kept, 10)
		wg.Go(func() { next.Keep(keeping, q, func(k queue.Kept) { moved <- k }) })
		t.Cleanup(func() { stop(); wg.Wait() })
		at := b.now().Add(300 * time.Millisecond)
		b.schedule("soon", at)
		select {
		case k := <-moved:
			if late := k.Dued.Now.Sub(at); k.Dued.Moved != 1 || late > time.Second {
				t.Errorf("%+v, %s late", k, late)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the next keeper sleeps")
		}
	})
}
