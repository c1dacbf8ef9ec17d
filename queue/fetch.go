package queue

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
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

// Fetch takes up to n jobs of a queue, at most MaxBatch, which are the worker's from then on: each needs a Finish. It does not
// wait for jobs, but for the end of a Wait of the same queue, if there is one. When it fails, ask again: what a lost answer had taken is found then, by Leave at the latest.
func (w *Worker) Fetch(ctx context.Context, queue string, n int) (Fetched, error) {
	return w.Turn(ctx, queue, n, nil, nil).Read()
}

// Turn is Fetch and Finish in one round trip, the ends first. All of them must be of jobs of this queue. It returns once Redis has
// answered. The answer must be read, in the order of the turns; the next turn may be under way meanwhile.
//
// answered is told, once, what Finish would return: by Read or, where Redis has to be asked again, later.
func (w *Worker) Turn(ctx context.Context, queue string, n int, ends []End, answered func([]error)) *Answer {
	l, err := w.lane(queue)
	if err == nil && n <= 0 {
		err = fmt.Errorf("fetch from %q: %d jobs asked for", queue, n)
	}
	if err != nil {
		refuse(ends, answered, err)
		return &Answer{err: err}
	}
	l.fetching.Lock()
	defer l.fetching.Unlock()
	defer w.suspicion.settle(l)
	began := time.Now()
	a := &Answer{worker: w, lane: l, ctx: ctx, n: min(n, MaxBatch), batch: l.lead(ctx, ends, answered)}
	a.ask()
	// An answer that was long on its way, or lay here while this process stood still, tells of jobs that others may have taken since.
	late := a.err == nil && len(a.reply) > fetchHead && l.hasStood(began)
	if a.err == nil && (a.reply[3] == int64(mustBeat) || late) {
		a.settle()
		for _, beaten := range w.beat(ctx, func(other *lane) bool { return other == l }) { // its failure shows below
			l.tellAgain(beaten.Lost)
		}
		a.ask()
	}
	if a.err == nil && a.reply[3] == int64(mustBeat) {
		a.err = ErrSilent
	}
	if a.err != nil {
		a.settle()
		a.err = fmt.Errorf("fetch from %q: %w", queue, a.err)
		return a
	}
	l.open = false
	l.number, _ = a.reply[7].(int64)
	a.request = l.request
	l.request++
	l.reading.Lock()
	l.unread.Store(true)
	if a.reply[6] != int64(0) {
		a.read() // a suspect: the next fetch must know of it
	}
	return a
}

func refuse(ends []End, answered func([]error), err error) {
	if len(ends) > 0 {
		answered(slices.Repeat([]error{err}, len(ends)))
	}
}

// Answer is Redis' answer to a Turn. Until it is read, the next Turn of the queue can't return.
type Answer struct {
	worker *Worker
	lane   *lane
	ctx    context.Context //nolint:containedctx // of the Turn
	n      int

	batch   []*ending // to be told that they are written
	request int64
	reply   []any
	err     error

	done bool // it is read
	got  Fetched
}

// More tells, before the answer is read, that the queue has further jobs to fetch.
func (a *Answer) More() bool {
	if a.err != nil {
		return false
	}
	left, _ := a.reply[2].(int64)
	held, _ := a.reply[5].(int64)
	return left > held && a.reply[3] == int64(0)
}

// Read tells the ends that they are written and takes up the jobs.
func (a *Answer) Read() (Fetched, error) {
	if a.err == nil && !a.done {
		a.read()
	}
	return a.got, a.err
}

func (a *Answer) read() {
	defer a.lane.reading.Unlock()
	defer a.lane.unread.Store(false)
	a.settle()
	a.got, a.err = a.worker.sort(a.ctx, a.lane, a.n, a.request, a.reply)
	a.done = true
}

func (a *Answer) settle() {
	a.worker.settleEnds(a.lane, a.batch)
	a.batch = nil
}

// ask asks once. The lane's fetch is open until it is answered.
func (a *Answer) ask() {
	w, l := a.worker, a.lane
	fetch := w.fetchCall(l, a.n, w.suspicion.reserve(l))
	l.open = true
	if len(a.batch) == 0 {
		w.client.run(a.ctx, fetch)
	} else {
		a.askWithEnds(fetch)
	}
	a.reply, a.err = fetchReply(fetch.reply)
}

// askWithEnds sends the fetch behind ends. Ends that Redis has not answered are asked for again, without the fetch.
func (a *Answer) askWithEnds(fetch *call) {
	w, l, batch := a.worker, a.lane, a.batch
	l.endRequest++
	request := l.endRequest
	ends := w.finishCalls(l, request, batch)
	w.client.run(a.ctx, append(callsOf(ends), fetch)...)
	if finished(ends) == nil {
		l.ending.stepDown()
		return
	}
	a.batch = nil
	go func() {
		w.write(l, request, batch)
		w.settleEnds(l, batch)
		l.ending.stepDown()
	}()
}

func (w *Worker) fetchCall(l *lane, n, suspects int) *call {
	lost := l.lost()
	idle := flag(l.count() == 0 && !l.unread.Load())
	watching := flag(l.mood().watching)
	again := flag(l.open) // an earlier copy may be on its way
	args := make([]any, 0, 11+len(lost))
	args = append(args, wire.JobPrefix(l.queue), w.id, l.name("f", l.request), wire.FetchMark(l.request), n, int(leaseTime/time.Second),
		idle, suspects, watching, again, len(lost))
	return &call{
		script: fetchScript,
		keys: []string{
			wire.PendingKey(l.queue), wire.ActiveKey(l.queue), wire.LeaseKey(l.queue), wire.PausedKey(l.queue),
			wire.MarksKey(l.queue), wire.WatchKey(l.queue), wire.WatcherKey(l.queue),
			wire.BeatsKey(l.queue), wire.SuspectsKey(l.queue),
		},
		args: append(args, lost...),
	}
}

// flag is how scripts read a condition.
func flag(is bool) int {
	if is {
		return 1
	}
	return 0
}

func fetchReply(cmd *redis.Cmd) ([]any, error) {
	reply, err := cmd.Slice()
	if err == nil && (len(reply) < fetchHead || len(reply)%2 != fetchHead%2) {
		err = fmt.Errorf("%w: %d values", errUnexpected, len(reply))
	}
	return reply, err
}

// fetchedJob is a job and its message in one piece of memory.
type fetchedJob struct {
	job     Job
	message wire.Message
}

// fetchedAtOnce is how many of them share a piece: one that runs for long keeps its neighbours' memory.
const fetchedAtOnce = 8

// sort tells the jobs that can run from those that can't.
func (w *Worker) sort(ctx context.Context, l *lane, n int, request int64, reply []any) (Fetched, error) {
	var head [fetchHead]int64
	for i := range head {
		head[i], _ = reply[i].(int64)
	}
	out := Fetched{Now: clock(head[0], head[1]), Left: int(head[2] - head[5]), Paused: head[3] == 1, Orphans: int(head[4]), HeldBack: int(head[5])}

	mark := wire.NewMark(head[7], request)
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
		*job = Job{ID: id, Queue: l.queue, Attempt: request<<10 + n, mark: mark} // a fetch brings no more than MaxBatch
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
