package sourcetest

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bellhop-dev/bellhop/events"
)

// promptly is far more than a Run takes to return; what it took is printed.
const promptly = 10 * time.Second

func (b *bundle) allArePublished() {
	want := ids("e", 1200)
	b.Send(b, want...)
	stop := b.start()
	b.eventually("all are stored", func() bool { return b.length() >= len(want) })
	b.drained(stop)
	if diff := cmp.Diff(want, b.stored()); diff != "" {
		b.Errorf("stored (-want +got):\n%s", diff)
	}
	calls, tried := b.gate.count()
	b.Logf("%d messages, %d events published in %d calls", len(want), tried, calls)
	if calls > len(want)/2 {
		b.Errorf("%d calls for %d messages: they are not batched", calls, len(want))
	}
	if n := b.log.warnings(); n != 0 {
		b.Errorf("logged:\n%s", b.log.text())
	}
}

// drained stops the source, and another one until the last acknowledgement has reached the broker.
func (b *bundle) drained(stop func() time.Duration) {
	b.Helper()
	b.eventually("the broker has nothing left", func() bool {
		stop()
		waits := b.Waiting(b)
		if waits > 0 {
			stop = b.start()
		}
		return waits == 0
	})
}

func (b *bundle) acknowledgedAfterward() {
	want := ids("e", 40)
	b.Send(b, want...)
	gate := make(chan struct{})
	b.gate.set(gate, nil)
	stop := b.start()
	b.eventually("events are on their way", func() bool { calls, _ := b.gate.count(); return calls > 0 })
	took := stop()
	b.Logf("stopped within %v while publishing hangs", took)
	if took > promptly {
		b.Errorf("Run took %v to return", took)
	}
	b.eventually("all are back", func() bool { return b.Waiting(b) == len(want) })
	if got := b.stored(); len(got) > 0 {
		b.Errorf("stored through a closed gate: %v", got)
	}

	close(gate)
	stop = b.start()
	b.eventually("all are stored", func() bool { return b.length() == len(want) })
	b.drained(stop)
}

func (b *bundle) eachForItself() {
	all := ids("e", 30)
	refused := map[string]bool{"e3": true, "e4": true, "e17": true, "e29": true}
	b.gate.set(nil, func(e *events.Event) error {
		if refused[e.ID] {
			return fmt.Errorf("not %s", e.ID)
		}
		return nil
	})
	b.Send(b, all...)
	stop := b.start()
	b.eventually("the others are stored", func() bool { return b.length() == len(all)-len(refused) })
	b.Send(b, "later") // behind those that wait, and not held up by them
	b.eventually("a later one is stored", func() bool { return b.length() == len(all)-len(refused)+1 })
	stop()
	b.eventually("the refused are back, and they alone", func() bool { return b.Waiting(b) == len(refused) })

	b.gate.set(nil, nil)
	stop = b.start()
	b.eventually("all are stored", func() bool { return b.length() == len(all)+1 })
	b.drained(stop)
}

func (b *bundle) refused() {
	want := ids("e", 300)
	b.gate.set(nil, func(*events.Event) error { return events.ErrFull })
	b.Send(b, want...)
	at := time.Now()
	stop := b.start()
	b.eventually("it tries again", func() bool { calls, _ := b.gate.count(); return calls >= 6 })
	calls, tried := b.gate.count()
	took := time.Since(at)
	b.Logf("full for %v: %d calls, %d events", took.Round(time.Millisecond), calls, tried)
	if most := 20 + int(took/(20*time.Millisecond)); calls > most {
		b.Errorf("%d calls within %v: that is a storm", calls, took)
	}
	if n := b.log.warnings(); n != 1 {
		b.Errorf("an outage is logged %d times:\n%s", n, b.log.text())
	}
	b.gate.set(nil, nil)
	b.eventually("all are stored", func() bool { return b.length() == len(want) })
	b.eventually("the end is logged", func() bool { return strings.Contains(b.log.text(), "INFO") })
	b.drained(stop)
}

func (b *bundle) poison() {
	b.Send(b, ids("a", 5)...)
	b.SendPoison(b, 3)
	b.Send(b, ids("b", 5)...)
	b.gate.set(nil, func(e *events.Event) error {
		if e.ID == "a2" {
			return fmt.Errorf("%w: as drawn", events.ErrTooLarge)
		}
		return nil
	})
	stop := b.start()
	b.eventually("the others are stored", func() bool { return b.length() == 9 })
	b.eventually("four are set aside", func() bool { return len(b.SetAside(b)) == 4 })
	b.drained(stop)
	tooLarge := 0
	for _, reason := range b.SetAside(b) {
		b.Logf("set aside: %s", reason)
		if reason == "" {
			b.Error("a message is set aside without a reason")
		}
		if strings.Contains(reason, events.ErrTooLarge.Error()) {
			tooLarge++
		}
	}
	if n := len(b.SetAside(b)); n != 4 || tooLarge != 1 {
		b.Errorf("%d are set aside, %d of them as too large", n, tooLarge)
	}
}

func (b *bundle) cut() {
	const rounds, each = 3, 1500
	stop := b.start()
	for round := range rounds {
		b.Send(b, ids(fmt.Sprintf("r%d-", round), each)...)
		b.eventually("some are stored", func() bool { return b.length() > round*each })
		b.Cut(b)
	}
	b.eventually("all are stored", func() bool { return b.length() == rounds*each })
	b.drained(stop)
	_, tried := b.gate.count()
	b.Logf("%d messages, %d published again after a cut and absorbed", rounds*each, tried-rounds*each)
	if n := b.log.warnings(); n > rounds {
		b.Errorf("%d outages are logged %d times:\n%s", rounds, n, b.log.text())
	}
}

func (b *bundle) idle() {
	b.Send(b, "one")
	stop := b.start()
	b.eventually("it is at work", func() bool { return b.length() == 1 })
	took := stop()
	b.Logf("stopped within %v", took)
	if took > promptly {
		b.Errorf("Run took %v to return", took)
	}
}
