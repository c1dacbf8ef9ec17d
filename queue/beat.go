package queue

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/bellhop-dev/bellhop/internal/wire"
)

var (
	//go:embed beat.lua
	beatSource string
	//go:embed leave.lua
	leaveSource string

	beatScript  = newScript(beatSource)
	leaveScript = newScript(leaveSource)
)

// BeatInterval is how often a worker should call Beat.
const BeatInterval = time.Second

// keepTime is how long a queue's keeper may be silent until another worker keeps the queue.
const keepTime = 3 * BeatInterval

// Beaten is Redis' answer to a beat, for one queue.
type Beaten struct {
	Queue  string
	Now    time.Time // of Redis' clock
	Paused bool
	Keeper bool // this worker keeps the queue until a beat says otherwise: it runs Due and Clean

	// Lost jobs still run here but belong to another attempt by now: cancel them. Their Finish changes nothing.
	Lost []*Job

	// Err tells that the beat did not reach Redis: the other fields mean nothing.
	Err error
}

// Beat records the sign of life and extends the leases of all jobs that the worker holds, in one round trip. It answers for
// each queue, in the order of Queues.
func (w *Worker) Beat(ctx context.Context) []Beaten {
	beats := make([]*beat, len(w.names))
	var calls []*call
	for i, name := range w.names {
		beats[i] = w.newBeat(w.lanes[name])
		calls = append(calls, beats[i].calls...)
	}
	w.client.run(ctx, calls...)
	out := make([]Beaten, len(beats))
	for i, b := range beats {
		out[i] = b.answer()
	}
	return out
}

// beat is the beat of one queue: a call for each MaxBatch jobs.
type beat struct {
	lane  *lane
	calls []*call
	jobs  [][]*Job
}

func (w *Worker) newBeat(l *lane) *beat {
	b := &beat{lane: l}
	keys := []string{wire.LeaseKey(l.queue), wire.PausedKey(l.queue), wire.OwnersKey(l.queue), wire.BeatsKey(l.queue), wire.KeeperKey(l.queue)}
	owned := l.owned()
	for first := true; first || len(owned) > 0; first = false {
		n := min(len(owned), MaxBatch)
		args := []any{w.id, int(leaseTime / time.Second), keepTime.Milliseconds()}
		for _, job := range owned[:n] {
			args = append(args, job.ID, job.Attempt)
		}
		b.calls = append(b.calls, &call{script: beatScript, keys: keys, args: args})
		b.jobs = append(b.jobs, owned[:n])
		owned = owned[n:]
	}
	return b
}

func (b *beat) answer() Beaten {
	out := Beaten{Queue: b.lane.queue}
	var lost []*Job
	for i, call := range b.calls {
		reply, err := call.reply.Int64Slice()
		if err == nil && len(reply) < 4 {
			err = fmt.Errorf("%w: %d values", errUnexpected, len(reply))
		}
		if err != nil {
			out.Err = fmt.Errorf("beat for queue %q: %w", b.lane.queue, err)
			continue
		}
		out.Now, out.Paused, out.Keeper = clock(reply[0], reply[1]), reply[2] == 1, reply[3] == 1
		for _, n := range reply[4:] {
			if n < 1 || int(n) > len(b.jobs[i]) {
				out.Err = fmt.Errorf("beat for queue %q: %w: place %d of %d", b.lane.queue, errUnexpected, n, len(b.jobs[i]))
				continue
			}
			lost = append(lost, b.jobs[i][n-1])
		}
	}
	out.Lost = b.lane.lose(lost)
	return out
}

// Leave takes the worker out of its queues, so that nobody waits for its beat. Call it last: hand back what is held first.
func (w *Worker) Leave(ctx context.Context) error {
	calls := make([]*call, len(w.names))
	for i, q := range w.names {
		keys := []string{wire.BeatsKey(q), wire.KeeperKey(q), wire.CallsKey(q), wire.WatchKey(q), wire.WatcherKey(q)}
		calls[i] = &call{script: leaveScript, keys: keys, args: []any{w.id}}
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
