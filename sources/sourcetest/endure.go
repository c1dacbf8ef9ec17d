package sourcetest

import (
	"sync/atomic"
	"testing"
	"time"
)

// Endure shows that none of n messages is lost while the source's process is killed again and again, with SIGKILL, and its broker
// once. The broker must be this test's alone.
func Endure(t *testing.T, h Harness, n, kills int) {
	t.Helper()
	b := newBundle(t, h)
	began := time.Now()
	var sent atomic.Int64
	sending := make(chan struct{})
	go func() {
		defer close(sending)
		for _, part := range parts(ids("m", n), 1000) {
			h.Send(t, part...)
			sent.Add(int64(len(part)))
		}
	}()

	// What is killed next is told by progress, not by time: each kill meets messages in flight.
	kill := b.process()
	for round := 1; round <= kills; round++ {
		b.eventually("progress", func() bool { return b.length() >= round*n/(kills+2) })
		kill()
		kill = b.process()
		if round == kills/2 {
			crashed := time.Now()
			h.Crash(t)
			t.Logf("the broker was killed with %d stored, and back after %v", b.length(), time.Since(crashed).Round(time.Millisecond))
		}
	}
	b.eventually("all are stored", func() bool { return b.length() >= n })
	took := time.Since(began)
	<-sending
	kill()
	b.drained(b.start())

	seen := make(map[string]int, n)
	for _, id := range b.stored() {
		seen[id]++
	}
	lost, twice := 0, 0
	for _, id := range ids("m", n) {
		switch seen[id] {
		case 0:
			lost++
		case 1:
		default:
			twice++
		}
	}
	again, err := b.redis.Client().Get(t.Context(), duplicates).Int()
	if err != nil {
		t.Logf("no duplicate was counted: %v", err)
	}
	t.Logf("%d messages sent, %d kills of the source, 1 of the broker: %d lost, %d stored twice; %d came again and were absorbed; %v, %.0f a second",
		sent.Load(), kills, lost, twice, again, took.Round(time.Millisecond), float64(n)/took.Seconds())
	if lost > 0 || twice > 0 || len(seen) != n {
		t.Errorf("%d lost, %d stored twice, %d ids of %d", lost, twice, len(seen), n)
	}
}

func parts(list []string, size int) [][]string {
	var out [][]string
	for len(list) > size {
		out = append(out, list[:size])
		list = list[size:]
	}
	return append(out, list)
}
