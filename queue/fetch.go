package queue

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/wire"
)

//go:embed fetch.lua
var fetchSource string

var fetchScript = newScript(fetchSource, marksSource)

// mustBeat is fetch.lua's word to a worker whose last beat is too long ago.
const mustBeat = 2

// ErrSilent tells that the worker's beats don't reach Redis, though its fetch did: nothing was taken.
var ErrSilent = errors.New("the worker's beat is more than 10 s old: call Beat every second")

// fetchHead are the values of fetch.lua's reply before those of the jobs.
const fetchHead = 9

// Fetched is the answer to Fetch.
type Fetched struct {
	Jobs   []*Job    // in the order in which they were pushed
	Left   int       // pending jobs that remain and could be fetched
	Paused bool      // the queue is paused: nothing was taken
	Now    time.Time // of Redis' clock

	// What was found beside them.
	Orphans     int // ids without a body: dropped
	Undecodable int // bodies that are no message: set aside under bellhop:{queue}:undecodable
	HeldBack    int // jobs whose earlier attempt still runs in this process, and suspects beside the one it holds: left in pending
}

// Fetch takes up to n jobs of a queue, at most MaxBatch, which are the worker's from then on: each needs a Finish. It never
// waits. When it fails, ask again: what a lost answer had taken is found then, by Leave at the latest.
func (w *Worker) Fetch(ctx context.Context, queue string, n int) (Fetched, error) {
	return w.Turn(ctx, queue, n, nil, nil)
}

// Turn is Fetch and Finish in one round trip, the ends first. All of them must be of jobs of this queue. answered is told, once, what
// Finish would return: before Turn returns or, where Redis has to be asked again, later.
func (w *Worker) Turn(ctx context.Context, queue string, n int, ends []End, answered func([]error)) (Fetched, error) {
	l, err := w.lane(queue)
	if err != nil {
		return Fetched{}, err
	}
	if n <= 0 {
		return Fetched{}, fmt.Errorf("fetch from %q: %d jobs asked for", queue, n)
	}
	l.fetching.Lock()
	defer l.fetching.Unlock()

	n = min(n, MaxBatch)
	defer w.suspicion.settle(l)
	reply, err := w.turn(ctx, l, n, ends, answered)
	if err == nil && reply[3] == int64(mustBeat) {
		w.beat(ctx, func(other *lane) bool { return other == l }) // its failure shows below
		reply, err = w.turn(ctx, l, n, nil, nil)
	}
	if err == nil && reply[3] == int64(mustBeat) {
		err = ErrSilent
	}
	if err != nil {
		return Fetched{}, fmt.Errorf("fetch from %q: %w", queue, err)
	}
	return w.taken(ctx, l, n, reply)
}

// turn asks once. The lane's fetch is open until it is answered.
func (w *Worker) turn(ctx context.Context, l *lane, n int, ends []End, answered func([]error)) ([]any, error) {
	batch := l.lead(ctx, ends, answered)
	how := takeBusy
	if l.count() == 0 {
		how = takeIdle
	}
	fetch := w.fetchCall(l, n, how, w.suspicion.reserve(l))
	l.open = true
	if batch == nil {
		w.client.run(ctx, fetch)
	} else {
		w.runWithEnds(ctx, l, fetch, batch)
	}
	return fetchReply(fetch.reply)
}

// runWithEnds sends a fetch behind ends. Ends that Redis has not answered are asked for again, without the fetch.
func (w *Worker) runWithEnds(ctx context.Context, l *lane, fetch *call, batch []*ending) {
	l.endRequest++
	request := l.endRequest
	ends := w.finishCalls(l, request, batch)
	w.client.run(ctx, append(callsOf(ends), fetch)...)
	if finished(ends) != nil {
		go func() {
			w.write(l, request, batch)
			w.settleEnds(l, batch)
			l.ending.stepDown()
		}()
		return
	}
	w.settleEnds(l, batch)
	l.ending.stepDown()
}

// How fetch.lua takes the worker's state.
const (
	takeBusy    = 0 // it holds jobs, which its beats speak for
	takeIdle    = 1 // it holds none: the fetch is a beat
	takeWaiting = 2 // the fetch was sent long before it runs: by then the worker may be gone, or stand still
)

func (w *Worker) fetchCall(l *lane, n, how, suspects int) *call {
	lost := l.lost()
	watching := 0
	if _, _, has := l.mood(); has || how == takeWaiting {
		watching = 1
	}
	args := make([]any, 0, 10+len(lost))
	args = append(args, wire.JobPrefix(l.queue), w.id, l.name("f", l.request), wire.FetchMark(l.request), n, int(leaseTime/time.Second),
		how, suspects, watching, len(lost))
	return &call{
		script: fetchScript,
		keys: []string{
			wire.PendingKey(l.queue), wire.ActiveKey(l.queue), wire.LeaseKey(l.queue), wire.PausedKey(l.queue),
			wire.OwnersKey(l.queue), wire.WatchKey(l.queue), wire.WatcherKey(l.queue),
			wire.BeatsKey(l.queue), wire.SuspectsKey(l.queue),
		},
		args: append(args, lost...),
	}
}

func fetchReply(cmd *redis.Cmd) ([]any, error) {
	reply, err := cmd.Slice()
	if err == nil && (len(reply) < fetchHead || len(reply)%2 != fetchHead%2) {
		err = fmt.Errorf("%w: %d values", errUnexpected, len(reply))
	}
	return reply, err
}

// taken ends the lane's fetch with its answer.
func (w *Worker) taken(ctx context.Context, l *lane, n int, reply []any) (Fetched, error) {
	l.open = false
	got, err := w.sort(ctx, l, n, reply)
	l.request++
	return got, err
}

// fetchedJob is a job and its message in one piece of memory.
type fetchedJob struct {
	job     Job
	message wire.Message
}

// fetchedAtOnce is how many of them share a piece: one that runs for long keeps its neighbours' memory.
const fetchedAtOnce = 8

// sort tells the jobs that can run from those that can't.
func (w *Worker) sort(ctx context.Context, l *lane, n int, reply []any) (Fetched, error) {
	var head [fetchHead]int64
	for i := range head {
		head[i], _ = reply[i].(int64)
	}
	out := Fetched{Now: clock(head[0], head[1]), Left: int(head[2] - head[5]), Paused: head[3] == 1, Orphans: int(head[4]), HeldBack: int(head[5])}

	mark := wire.NewMark(head[7], l.request)
	count := (len(reply) - fetchHead) / 2
	jobs := make([]*Job, 0, count)
	var ends []End
	var room []fetchedJob
	for i := fetchHead; i+1 < len(reply); i += 2 {
		id, _ := reply[i].(string)
		body, _ := reply[i+1].(string)
		n := int64(i-fetchHead) / 2
		if len(room) == 0 {
			room = make([]fetchedJob, min(fetchedAtOnce, count-int(n)))
		}
		job, msg := &room[0].job, &room[0].message
		room = room[1:]
		*job = Job{ID: id, Queue: l.queue, Attempt: l.request<<10 + n, mark: mark} // a fetch brings no more than MaxBatch
		if n+1 == head[6] {
			w.suspicion.fall(job)
		}
		if err := msg.Read(body); err != nil || msg.ID != id {
			out.Undecodable++
			ends = append(ends, End{job: job, what: endAside})
			continue
		}
		job.Message = msg
		jobs = append(jobs, job)
	}
	ours, clashing := l.hold(jobs)
	out.HeldBack += len(clashing)
	for _, job := range clashing {
		ends = append(ends, HandBack(job))
	}
	// A resent request may bring more than there are slots for now.
	if len(ours) > n {
		for _, job := range ours[n:] {
			ends = append(ends, HandBack(job))
		}
		ours = ours[:n]
	}
	out.Jobs = ours
	l.fetched(out, head[8] == 1)
	if len(ends) == 0 {
		return out, nil
	}
	for _, err := range w.Finish(ctx, ends...) {
		if err != nil {
			// The jobs that were taken are still the caller's.
			return out, fmt.Errorf("give back what can't run now in %q: %w", l.queue, err)
		}
	}
	return out, nil
}
