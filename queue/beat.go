package queue

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bellhop-dev/bellhop/internal/wire"
)

var (
	//go:embed beat.lua
	beatSource string
	//go:embed leave.lua
	leaveSource string

	beatScript  = newScript(beatSource, marksSource, leasesSource)
	leaveScript = newScript(leaveSource)
)

// BeatInterval is how often a worker should call Beat.
const BeatInterval = time.Second

// overdueAfter is how long a worker's last beat may be ago before it must reckon with others taking it for one that stands still.
const overdueAfter = idleBeat + BeatInterval

// idleBeat is how often a worker beats for a queue of which it holds no job: nobody waits for its jobs.
const idleBeat = 5 * BeatInterval

// keepTime is how long a queue's keeper may be silent until another worker keeps the queue.
const keepTime = 2*idleBeat + BeatInterval

// Beaten is Redis' answer to a beat, for one queue.
type Beaten struct {
	Queue  string
	Now    time.Time // of Redis' clock
	Keeper bool      // this worker keeps the queue until a beat says otherwise: it runs Due and Clean

	// Lost jobs still run here but belong to another attempt by now: cancel them. Their Finish changes nothing.
	Lost []*Job

	// Err tells that the beat did not reach Redis: the other fields mean nothing.
	Err error
}

// Beat records the sign of life and extends the leases of all jobs that the worker holds, in one round trip. It answers for
// each queue that was due for a beat: those of which the worker holds jobs, the others every 5 s.
func (w *Worker) Beat(ctx context.Context) []Beaten {
	return w.beat(ctx, func(l *lane) bool { return l.count() > 0 || l.isDue() })
}

// Called tells that a beat is wanted at once, though the next one isn't due: nobody keeps one of the queues any more.
func (w *Worker) Called() <-chan struct{} { return w.called }

// call makes the next Beat one of this queue too, and asks for it.
func (w *Worker) call(queue string) {
	l, ok := w.lanes[queue]
	if !ok {
		return
	}
	l.wantBeat()
	select {
	case w.called <- struct{}{}:
	default: // one call is enough
	}
}

func (w *Worker) beat(ctx context.Context, due func(*lane) bool) []Beaten {
	var beats []*beat
	var calls []*call
	for _, name := range w.names {
		if l := w.lanes[name]; due(l) {
			b := w.newBeat(l)
			beats = append(beats, b)
			calls = append(calls, b.call)
		}
	}
	if len(calls) == 0 {
		return nil
	}
	w.client.run(ctx, calls...)
	out := make([]Beaten, len(beats))
	for i, b := range beats {
		out[i] = b.answer()
	}
	return out
}

// beat is the beat of one queue, one call for all its jobs.
type beat struct {
	lane *lane
	call *call
	jobs []*Job
	sent time.Time
}

func (w *Worker) newBeat(l *lane) *beat {
	l.beats()
	b := &beat{lane: l, jobs: l.owned(), sent: time.Now()}
	args := make([]any, 0, 3+2*len(b.jobs))
	args = append(args, w.id, int(leaseTime/time.Second), keepTime.Milliseconds())
	for _, job := range b.jobs {
		args = append(args, job.ID, int64(job.mark))
	}
	b.call = &call{
		script: beatScript,
		keys:   []string{wire.LeaseKey(l.queue), wire.MarksKey(l.queue), wire.BeatsKey(l.queue), wire.KeeperKey(l.queue), wire.WatchKey(l.queue), wire.WatcherKey(l.queue)},
		args:   args,
	}
	return b
}

func (b *beat) answer() Beaten {
	out := Beaten{Queue: b.lane.queue}
	reply, err := b.call.reply.Int64Slice()
	if err == nil && len(reply) < 3 {
		err = fmt.Errorf("%w: %d values", errUnexpected, len(reply))
	}
	if err != nil {
		b.lane.wantBeat() // it may have been called for
		out.Err = fmt.Errorf("beat for queue %q: %w", b.lane.queue, err)
		return out
	}
	out.Now, out.Keeper = clock(reply[0], reply[1]), reply[2] == 1
	b.lane.beaten(b.sent)
	var lost []*Job
	for _, n := range reply[3:] {
		if n >= 1 && int(n) <= len(b.jobs) {
			lost = append(lost, b.jobs[n-1])
		}
	}
	out.Lost = b.lane.lose(lost)
	return out
}

// Leave takes the worker out of its queues, so that nobody waits for its beat. Call it last: hand back what is held first. What
// a fetch took whose answer was lost is handed back here, if Settle has not done it.
func (w *Worker) Leave(ctx context.Context) error {
	if err := w.Settle(ctx); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	calls := make([]*call, len(w.names))
	for i, q := range w.names {
		keys := []string{wire.BeatsKey(q), wire.KeeperKey(q), wire.CallsKey(q), wire.WatchKey(q), wire.WatcherKey(q), wire.MarksKey(q)}
		calls[i] = &call{script: leaveScript, keys: keys, args: []any{w.id, wire.AliveChannel(""), q}}
	}
	w.client.run(ctx, calls...)
	var faults []error
	for i, call := range calls {
		if err := call.reply.Err(); err != nil {
			faults = append(faults, fmt.Errorf("leave queue %q: %w", w.names[i], err))
		}
	}
	return errors.Join(faults...)
}

// Settle asks again for the answers that were lost, in these queues or in all, and hands back what they bring: for a worker that has no slot for
// it, or fetches no more.
func (w *Worker) Settle(ctx context.Context, queues ...string) error {
	var faults []error
	for _, name := range w.names {
		if len(queues) > 0 && !slices.Contains(queues, name) {
			continue
		}
		l := w.lanes[name]
		l.fetching.Lock()
		open := l.open
		l.fetching.Unlock()
		if !open {
			continue
		}
		got, err := w.Fetch(ctx, name, 1) // more than one is handed back by Fetch
		faults = append(faults, err)
		for _, job := range got.Jobs {
			faults = append(faults, w.Finish(ctx, HandBack(job))...)
		}
	}
	return errors.Join(faults...)
}
