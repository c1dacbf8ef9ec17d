package queue

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bellhop-dev/bellhop/internal/wire"
)

// leaseTime is how far ahead a lease is written. A stock server takes a job away 30 s after its lease has ended, so that a
// living worker keeps it while clocks differ by up to 25 s and a few beats fail.
const leaseTime = 30 * time.Second

// MaxBatch is the most jobs that one Fetch takes or one call of a script ends.
const MaxBatch = 500

// Job is a running attempt that a Worker owns.
type Job struct {
	ID      string
	Queue   string
	Attempt int64 // rises with each fetch of the worker from the queue
	Message *wire.Message

	mark wire.Mark // of the attempt, in the job's lease

	// Between its Fetch and its Finish, guarded by its lane.
	lost bool // another attempt may run by now; ours has not ended
	told bool // a Beat has said so
}

// ErrNotOwner tells that the job is no longer this worker's: it was given to another after this one seemed dead. Nothing was written.
var ErrNotOwner = errors.New("the job is owned by another attempt")

// Worker owns running jobs for one process. It knows which jobs it holds: from their Fetch until their Finish. It is safe for
// concurrent use.
type Worker struct {
	client *Client
	id     string
	lanes  map[string]*lane
	names  []string
	called chan struct{} // one place: a beat is wanted

	suspicion suspicion
}

// lane is a worker's dealings with one queue.
type lane struct {
	queue   string
	session string // makes requests of this process differ from those of an earlier one with its id

	fetching sync.Mutex // one fetch at a time: the first answer of a request is found by its number alone
	request  int64      // of the fetch that was not answered yet, or the next
	number   int64      // the worker's, in marks; 0 before the first fetch
	taught   bool       // Redis has the scripts of a wait
	noted    int64      // the request that a claim may follow
	lively   bool       // the last wait was short
	full     bool       // so was Redis, when it was last waited
	open     bool       // a fetch was asked for and not answered: it may have taken jobs
	reading  sync.Mutex // an answer is to be read: the next one must wait
	unread   atomic.Bool

	mu     sync.Mutex
	held   map[string]*Job // by id: between their Fetch and their Finish
	beat   time.Time       // when the last one was sent that Redis answered
	stood  time.Time       // when the last one was sent that came after a gap
	wanted bool            // a beat is due at once
	waits  mood

	ending     batcher[*ending]
	endRequest int64 // of the last batch of ends; touched by the batcher's writer alone
}

// NewWorker returns a worker that serves queues. The id must be new for every start of a process, without white space.
func (c *Client) NewWorker(id string, queues ...string) (*Worker, error) {
	if id == "" || strings.ContainsAny(id, " \t\r\n") {
		return nil, fmt.Errorf("worker id %q: it must be one word", id)
	}
	if len(queues) == 0 {
		return nil, errors.New("worker " + id + " serves no queue: name one")
	}
	session := newSession()
	w := &Worker{client: c, id: id, lanes: make(map[string]*lane, len(queues)), names: slices.Clone(queues), called: make(chan struct{}, 1)}
	for _, queue := range queues {
		if err := wire.CheckQueue(queue); err != nil {
			return nil, err
		}
		w.lanes[queue] = w.newLane(queue, session)
	}
	return w, nil
}

func (w *Worker) newLane(queue, session string) *lane {
	l := &lane{queue: queue, session: session, request: 1, held: make(map[string]*Job)}
	l.ending = batcher[*ending]{
		maxItems: MaxBatch,
		maxBytes: maxCallBytes,
		bytes:    func(e *ending) int { return e.end.bytes() },
		write:    func(_ int, batch []*ending) { w.commit(l, batch) },
	}
	return l
}

// ID is the worker's name in Redis.
func (w *Worker) ID() string { return w.id }

// Queues are the names that the worker serves.
func (w *Worker) Queues() []string { return slices.Clone(w.names) }

func (w *Worker) lane(queue string) (*lane, error) {
	l, ok := w.lanes[queue]
	if !ok {
		return nil, fmt.Errorf("worker %s does not serve queue %q: it was made for %q", w.id, queue, w.names)
	}
	return l, nil
}

// hold notes jobs as ours. Those whose earlier attempt still runs here are given back: one process must not run a job twice at
// once.
func (l *lane) hold(jobs []*Job) (ours, clashing []*Job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ours = jobs[:0]
	for _, job := range jobs {
		if earlier, ok := l.held[job.ID]; ok {
			// The attempt of a fetch with the same mark, 512 fetches ago, is ours still: an answer that was asked for again names it too.
			if earlier.mark != job.mark {
				earlier.lost = true
				clashing = append(clashing, job)
			}
			continue
		}
		l.held[job.ID] = job
		ours = append(ours, job)
	}
	return ours, clashing
}

// release forgets the jobs whose handlers have ended.
func (l *lane) release(batch []*ending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range batch {
		job := e.end.job
		if e.end.what == endResult {
			continue // it runs on
		}
		if held, ok := l.held[job.ID]; ok && held.Attempt == job.Attempt {
			delete(l.held, job.ID)
		}
	}
}

// tellAgain lets the next Beat name lost jobs once more.
func (l *lane) tellAgain(jobs []*Job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, job := range jobs {
		job.told = false
	}
}

// lost are the ids that must not be fetched: their earlier attempt still runs here.
func (l *lane) lost() []any {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ids []any
	for id, job := range l.held {
		if job.lost {
			ids = append(ids, id)
		}
	}
	return ids
}

// owned are the jobs to beat for.
func (l *lane) owned() []*Job {
	l.mu.Lock()
	defer l.mu.Unlock()
	jobs := make([]*Job, 0, len(l.held))
	for _, job := range l.held {
		if !job.lost {
			jobs = append(jobs, job)
		}
	}
	return jobs
}

// lose marks jobs that Redis says are no longer ours, and returns all lost ones that still run here and were not told yet: a
// fetch, too, finds out when it meets such a job in pending.
func (l *lane) lose(jobs []*Job) []*Job {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, job := range jobs {
		if held, ok := l.held[job.ID]; ok && held.Attempt == job.Attempt {
			held.lost = true
		}
	}
	var running []*Job
	for _, job := range l.held {
		if job.lost && !job.told {
			job.told = true
			running = append(running, job)
		}
	}
	return running
}

// count is how many jobs of the queue are held.
func (l *lane) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.held)
}

// isDue tells that an idle worker has to beat.
func (l *lane) isDue() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wanted || time.Since(l.beat) >= idleBeat-BeatInterval/2
}

// wantBeat makes the next beat one of this queue.
func (l *lane) wantBeat() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wanted = true
}

// beats notes that a beat is about to be sent.
func (l *lane) beats() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wanted = false
}

// beaten notes a beat that Redis has answered. What counts is when it was sent: its answer may have waited while this process stood still.
func (l *lane) beaten(sent time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !sent.After(l.beat) {
		return // a later one was faster
	}
	if !l.beat.IsZero() && between(l.beat, sent) > overdueAfter {
		l.stood = sent
	}
	l.beat = sent
}

// hasStood tells that this process has stood still since then, or does not reach Redis, for so long that others may have its jobs. Of one that
// never beats, the scripts tell.
func (l *lane) hasStood(since time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stood.After(since) || !l.beat.IsZero() && between(l.beat, time.Now()) > overdueAfter
}

// between is the time between two, that of the clock on the wall if it is more: a machine that was suspended knows it by that alone.
func between(a, b time.Time) time.Duration { return max(b.Sub(a), b.Round(0).Sub(a.Round(0))) }

func (l *lane) name(kind string, n int64) string {
	return l.session + kind + strconv.FormatInt(n, 10)
}

// clock is Redis' time of two answers of TIME.
func clock(s, us int64) time.Time { return time.Unix(s, us*int64(time.Microsecond)) }

// Held is how many jobs the worker holds in all its queues: fetched, and not yet finished.
func (w *Worker) Held() int {
	n := 0
	for _, l := range w.lanes {
		n += l.count()
	}
	return n
}

// Jobs are the jobs that the worker holds, those that it has lost included.
func (w *Worker) Jobs() []*Job {
	var jobs []*Job
	for _, name := range w.names {
		l := w.lanes[name]
		l.mu.Lock()
		for _, job := range l.held {
			jobs = append(jobs, job)
		}
		l.mu.Unlock()
	}
	return jobs
}
