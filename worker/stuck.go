package worker

import (
	"bytes"
	"fmt"
	"runtime"
	"strconv"
	"time"
)

// stuckAfter is how long after the end of its time a handler counts as one that ignores its context.
const stuckAfter = time.Second

// tellStuck logs, once, each handler that goes on though its time is used up. It keeps its slot and its job: to start
// the job elsewhere would run it twice, to give its slot away would let the concurrency grow.
func (p *pool) tellStuck() {
	now := time.Now()
	var stuck []*attempt
	held := 0
	p.mu.Lock()
	for a := range p.running.all() {
		if a.runner.Load() == 0 || now.Sub(a.deadline()) < stuckAfter {
			continue
		}
		held++
		if !a.stuck.Swap(true) {
			stuck = append(stuck, a)
		}
	}
	p.mu.Unlock()
	p.w.stuckSlots.Store(int64(held))
	if len(stuck) == 0 {
		return
	}
	stacks := allStacks()
	for _, a := range stuck {
		p.log.Error("a handler ignores that its time is used up, and holds its slot: make it return when its context ends",
			"job", a.job.ID, "task", a.job.Task, "queue", a.job.Queue, "attempt", a.job.Attempt,
			"running_for", now.Sub(a.started).Round(time.Millisecond).String(), "stack", stackOf(stacks, a.runner.Load()))
	}
}

// goroutine is the number of the calling goroutine, as stack dumps print it.
func goroutine() int64 {
	var buf [64]byte
	text := buf[:runtime.Stack(buf[:], false)]
	text = bytes.TrimPrefix(text, []byte("goroutine "))
	number, _, _ := bytes.Cut(text, []byte(" "))
	n, _ := strconv.ParseInt(string(number), 10, 64)
	return n
}

// maxStacks bounds a dump of all goroutines.
const maxStacks = 16 << 20

func allStacks() []byte {
	for size := 1 << 20; ; size *= 4 {
		buf := make([]byte, size)
		if n := runtime.Stack(buf, true); n < size || size >= maxStacks {
			return buf[:n]
		}
	}
}

func stackOf(stacks []byte, number int64) string {
	head := fmt.Appendf(nil, "goroutine %d [", number)
	at := bytes.Index(stacks, head)
	if at < 0 {
		return "unknown"
	}
	stack, _, _ := bytes.Cut(stacks[at:], []byte("\n\n"))
	return string(stack)
}
