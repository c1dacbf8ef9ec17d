package queue

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/wire"
)

// How an idle fleet hears of a push without polling. Each queue has one watch, an element of a list. Idle workers block on that list, and
// Redis serves the one that has waited longest. Who has the watch blocks on the pending list itself (BLMOVE from its right end
// to its right end, which moves nothing), so that any producer's push wakes it, stock asynq's too. Its claim stands in Redis behind
// the blocked command, so that the push runs it without another round trip. It hands the watch on, and the next one looks while this one
// works. So a push wakes one worker, not fifty; a backlog wakes them one after the other; nothing but a look is ever in the hands of a worker
// that dies.
var (
	//go:embed watch.lua
	watchSource string
	//go:embed claim.lua
	claimSource string

	watchScript = newScript(watchSource)
	claimScript = newScript(claimSource)
)

// claimValues are those of claim.lua's reply that brings a job.
const claimValues = 5

const (
	// blockTime bounds one blocking command. A connection that died without a word is noticed after it.
	blockTime = 10 * time.Second

	// watchTime is how long the watch stays with a worker that says nothing.
	watchTime = blockTime + 5*time.Second

	// pollTime is how often a queue is looked at that can't be waited for: Redis is full.
	pollTime = time.Second

	// pausedTime is how often a worker looks whether a paused queue goes on.
	pausedTime = 2 * time.Second

	// livelyTime is how soon a job has to come for its worker to ask whether others stand in line. Who wakes seldom does without: each
	// command counts then.
	livelyTime = 10 * time.Millisecond

	// retryTime is the pause after a failed command.
	retryTime = 200 * time.Millisecond
)

// Waiter waits for a worker's queues, on connections of its own: one for each queue, two for one that the worker keeps.
type Waiter struct {
	worker *Worker
	rdb    redis.UniversalClient
	ctx    context.Context //nolint:containedctx // its end closes the connections, which is what interrupts a blocked command
	stop   func() bool
	closed atomic.Bool
}

// Waiter opens the connections. The end of ctx closes them: what waits returns at once.
func (w *Worker) Waiter(ctx context.Context) (*Waiter, error) {
	rdb, err := dedicated(w.client.rdb, 2*len(w.names))
	if err != nil {
		return nil, err
	}
	t := &Waiter{worker: w, rdb: rdb, ctx: ctx}
	t.stop = context.AfterFunc(ctx, func() { _ = rdb.Close() })
	return t, nil
}

func (t *Waiter) isEnded() bool { return t.closed.Load() || t.ctx.Err() != nil }

// Close ends all waiting, as the end of the context does.
func (t *Waiter) Close() error {
	t.closed.Store(true)
	if !t.stop() {
		return nil // the context's end closes them
	}
	return t.rdb.Close()
}

// dedicated is a client of the same servers with connections that may block.
func dedicated(rdb redis.UniversalClient, conns int) (redis.UniversalClient, error) {
	switch rdb := rdb.(type) {
	case *redis.Client:
		opts := *rdb.Options()
		opts.PoolSize, opts.PipelinePoolSize, opts.MinIdleConns, opts.MaxIdleConns, opts.MaxActiveConns = conns, -1, 0, 0, 0
		opts.ReadTimeout, opts.MaxRetries = watchTime, -1
		return redis.NewClient(&opts), nil
	case *redis.ClusterClient:
		opts := *rdb.Options()
		opts.PoolSize, opts.PipelinePoolSize, opts.MinIdleConns, opts.MaxIdleConns, opts.MaxActiveConns = conns, -1, 0, 0, 0
		opts.ReadTimeout, opts.ReadOnly, opts.RouteByLatency, opts.RouteRandomly = watchTime, false, false, false
		opts.MaxRedirects = -1 // a blocking command is not sent again behind our back
		return redis.NewClusterClient(&opts), nil
	}
	return nil, fmt.Errorf("wait on a %T: not supported; use a Redis, Sentinel or Cluster address", rdb)
}

// Wait blocks until the queue has a pending job and it is this worker's turn to look, and takes it. Slots may have been given away by then:
// what can't start is to be handed back. No job, and no error, means: Fetch at once, or PassOn. Until then, a push wakes nobody.
//
// free is asked before the worker stands in line for long; Wait returns ErrBusy once it says no. It fails only with ErrBusy or when the
// Waiter is closed: Redis out of reach is waited for.
func (t *Waiter) Wait(queue string, free func() bool) (Fetched, error) {
	l, err := t.worker.lane(queue)
	if err != nil {
		return Fetched{}, err
	}
	for {
		if !free() && !t.owes(l) {
			return Fetched{}, t.busy(l)
		}
		got, woken, err := t.look(l)
		switch {
		case woken && len(got.Jobs) == 0 && t.owes(l): // a claim's answer that can't be trusted
		case woken:
			return got, nil
		case t.ctx.Err() != nil:
			return Fetched{}, fmt.Errorf("wait for queue %q: %w", queue, context.Cause(t.ctx))
		case errors.Is(err, redis.ErrClosed):
			return Fetched{}, fmt.Errorf("wait for queue %q: %w", queue, err)
		case err != nil:
			t.sleep(retryTime/2 + rand.N(retryTime)) // after an outage, not all at once
			t.mend(l)
		}
	}
}

// owes tells that a lost answer may have taken jobs, which must wait neither for the next push nor for a slot.
func (t *Waiter) owes(l *lane) bool { return !t.isEnded() && l.isOpen() }

func (l *lane) isOpen() bool {
	l.fetching.Lock()
	defer l.fetching.Unlock()
	return l.open
}

// mend sees to the watch after a failed command: its answer may have been lost, and the watch with it. Who can't reach Redis goes on as it was:
// Redis may come back with the watch in this worker's name, and nobody else would look until that expires.
func (t *Waiter) mend(l *lane) {
	ctx, cancel := context.WithTimeout(t.ctx, pollTime)
	defer cancel()
	if t.worker.client.pass(ctx, l.queue, t.worker.id, true) == nil {
		l.setWatching(false)
	}
}

// ErrBusy tells that a Wait ended because the worker has no free slot.
var ErrBusy = errors.New("no free slot")

func (t *Waiter) busy(l *lane) error {
	if err := t.PassOn(t.ctx, l.queue); err != nil {
		return errors.Join(ErrBusy, err)
	}
	return ErrBusy
}

// look is one blocking command, or the fetch that an answer is owed to: true if it has found jobs, taken or not.
func (t *Waiter) look(l *lane) (Fetched, bool, error) {
	if t.owes(l) {
		got, err := t.worker.Fetch(t.ctx, l.queue, 1)
		return got, err == nil, err
	}
	state := l.mood()
	switch {
	case state.paused:
		resumed, err := t.resumed(l)
		return Fetched{}, resumed, err
	case state.blocked:
		// The jobs of this queue wait for attempts that run here. Others have the watch meanwhile.
		l.change(func(m *mood) { m.blocked = false })
		t.sleep(pollTime / 4)
		return Fetched{}, false, nil
	case !state.watching && !state.alone:
		return Fetched{}, false, t.takeWatch(l)
	}
	got, full, err := t.watch(l, !state.watching)
	switch {
	case len(got.Jobs) > 0 || err == nil && !full:
		return got, true, nil
	case full:
		found, err := t.poll(l)
		return got, found, err
	case errors.Is(err, redis.Nil):
		return got, false, nil
	}
	return got, false, err
}

// resumed looks every two seconds whether a queue is still paused. It can't be waited for: the pending list has jobs all the while.
func (t *Waiter) resumed(l *lane) (bool, error) {
	t.sleep(pausedTime)
	n, err := t.rdb.Exists(t.ctx, wire.PausedKey(l.queue)).Result()
	if err != nil || n > 0 {
		return false, err
	}
	l.change(func(m *mood) { m.paused = false })
	return true, nil
}

func (t *Waiter) takeWatch(l *lane) error {
	err := t.rdb.BLPop(t.ctx, blockTime, wire.WatchKey(l.queue)).Err()
	if errors.Is(err, redis.Nil) {
		return nil
	}
	if err == nil {
		l.change(func(m *mood) { m.watching, m.unnoted = true, true })
	}
	return err
}

// watch blocks on the pending list, with a claim behind it, which brings one job at most: a machine that vanishes takes no more along until it
// is missed. take tells that the watch lies in its list and is to be taken first. It fails with redis.Nil if nothing came in time. full tells
// that Redis is: then nothing can be waited for.
func (t *Waiter) watch(l *lane, take bool) (got Fetched, full bool, err error) {
	l.fetching.Lock()
	defer l.fetching.Unlock()
	if err := t.teach(l); err != nil {
		return Fetched{}, redis.HasErrorPrefix(err, "OOM"), err
	}
	l.setWatching(true) // what was popped, or is popped now, is noted
	v := t.lookOut(l, take)
	got, err = t.claimed(l, v)
	if len(got.Jobs) > 0 && got.Left == 0 && v.isAlone() {
		l.change(func(m *mood) { m.alone = true })
	}
	faults := append([]error{err}, v.faults()...)
	l.full = slices.ContainsFunc(faults, func(err error) bool { return redis.HasErrorPrefix(err, "OOM") })
	switch {
	case l.full:
		return got, true, err
	case slices.ContainsFunc(faults, isNoScript):
		l.taught = false
		return got, false, nil // a Fetch sees to what was pushed
	}
	return got, false, cmp.Or(faults...)
}

// teach has Redis know the scripts, and notes the request of the first claim.
func (t *Waiter) teach(l *lane) error {
	if l.taught {
		return nil
	}
	w, note := t.worker, t.worker.watchCall(l)
	w.client.run(t.ctx, note, w.vainClaim(l))
	if err := note.reply.Err(); err != nil {
		return err
	}
	l.taught, l.noted = true, l.request
	return nil
}

// lookout is a blocking command and what stands before and behind it, in the order in which Redis runs it.
type lookout struct {
	began  time.Time
	taken  *redis.StringCmd // the watch, or nil if the worker has it already
	mine   *redis.StatusCmd // notes who has the watch
	note   *call            // notes the claim's request, or nil if it is noted
	pushed *redis.StringCmd
	claim  *call
	line   *redis.IntCmd // tells whether the watch that the claim has handed on still lies there: nobody waits for it. Or nil
}

func (t *Waiter) lookOut(l *lane, take bool) *lookout {
	w, ctx, pending := t.worker, t.ctx, wire.PendingKey(l.queue)
	plain, pipe := w.client.plain.Load(), t.rdb.Pipeline()
	v := &lookout{began: time.Now(), claim: w.claimCall(l)}
	if take {
		v.taken = pipe.LPop(ctx, wire.WatchKey(l.queue))
	}
	v.mine = pipe.Set(ctx, wire.WatcherKey(l.queue), w.id, watchTime)
	if l.noted != l.request || l.full || l.hasStood(time.Now()) { // who has not beaten for so long may be refused
		v.note = w.watchCall(l)
		v.note.queue(ctx, pipe, plain)
	}
	v.pushed = pipe.BLMove(ctx, pending, pending, "RIGHT", "RIGHT", blockTime)
	v.claim.queue(ctx, pipe, plain)
	if l.lively {
		v.line = pipe.LLen(ctx, wire.WatchKey(l.queue))
	}

	l.open = true
	_, _ = pipe.Exec(ctx)
	l.lively = time.Since(v.began) < livelyTime
	if v.note != nil && v.note.reply.Err() == nil {
		l.noted = l.request
	}
	return v
}

// isAlone tells that no other worker stood in line after the claim.
func (v *lookout) isAlone() bool { return v.line != nil && v.line.Val() > 0 }

// faults are those beside the claim's own.
func (v *lookout) faults() []error {
	faults := []error{v.mine.Err(), v.pushed.Err()}
	if v.note != nil {
		faults = append(faults, v.note.reply.Err())
	}
	if v.taken != nil && !errors.Is(v.taken.Err(), redis.Nil) { // another one was faster: there are two who look, until the next claim
		faults = append(faults, v.taken.Err())
	}
	if v.line != nil {
		faults = append(faults, v.line.Err())
	}
	return faults
}

func (w *Worker) watchCall(l *lane) *call {
	var refused int64
	if l.full {
		refused = watchTime.Milliseconds()
	}
	return &call{
		script: watchScript,
		keys:   []string{wire.MarksKey(l.queue), wire.BeatsKey(l.queue), wire.WatcherKey(l.queue)},
		args:   []any{w.id, l.number, l.session, l.request, refused},
	}
}

// claimCall is of the lane's next request, as watchCall notes it.
func (w *Worker) claimCall(l *lane) *call {
	return w.claim(l, strconv.FormatInt(l.number, 10)+" "+l.name("c", l.request))
}

// vainClaim takes nothing. It teaches Redis the script.
func (w *Worker) vainClaim(l *lane) *call { return w.claim(l, "") }

func (w *Worker) claim(l *lane, entry string) *call {
	return &call{
		script: claimScript,
		keys: []string{
			wire.PendingKey(l.queue), wire.ActiveKey(l.queue), wire.LeaseKey(l.queue), wire.PausedKey(l.queue),
			wire.MarksKey(l.queue), wire.SuspectsKey(l.queue), wire.WatchKey(l.queue), wire.WatcherKey(l.queue),
		},
		args: []any{
			wire.JobPrefix(l.queue), w.id, entry, int(leaseTime / time.Second), wire.NewMark(l.number, l.request).Fraction(), watchTime.Milliseconds(),
		},
	}
}

// claimed reads a claim's answer. What it has taken is ours, whatever failed beside it.
func (t *Waiter) claimed(l *lane, v *lookout) (Fetched, error) {
	reply, err := v.claim.reply.Result()
	switch {
	case isNoScript(err):
		l.open = false
		return Fetched{}, err
	case err != nil:
		return Fetched{}, err
	}
	job, answered := reply.([]any)
	if len(job) > 0 && l.hasStood(v.began) {
		return Fetched{}, nil // this process stood still: others may have taken the job since. A Fetch tells
	}
	l.open = false
	if answered && len(job) == 0 {
		return Fetched{}, nil // the next claim needs no other note
	}
	request := l.request
	l.request++
	if !answered {
		return Fetched{}, nil
	}
	if len(job) != claimValues {
		return Fetched{}, fmt.Errorf("%w: %d values", errUnexpected, len(job))
	}
	head := []any{job[0], job[1], job[2], int64(0), int64(0), int64(0), int64(0), l.number, int64(0)}
	l.reading.Lock()
	defer l.reading.Unlock()
	return t.worker.sort(t.ctx, l, 1, request, append(head, job[3:]...))
}

// poll looks without a write, which a full Redis refuses.
func (t *Waiter) poll(l *lane) (bool, error) {
	t.sleep(pollTime)
	n, err := t.rdb.LLen(t.ctx, wire.PendingKey(l.queue)).Result()
	return n > 0, err
}

func (t *Waiter) sleep(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.ctx.Done():
	}
}

// PassOn gives the queue's watch, if this worker has it, to the next idle one: for a worker that was woken and can't fetch, or whose
// Waiter has ended.
func (t *Waiter) PassOn(ctx context.Context, queue string) error {
	l, err := t.worker.lane(queue)
	if err != nil {
		return err
	}
	was := l.mood()
	l.setWatching(false)
	if !was.watching {
		return nil
	}
	if err := t.worker.client.pass(ctx, queue, t.worker.id, was.unnoted); err != nil {
		l.change(func(m *mood) { *m = was })
		return fmt.Errorf("pass on the watch of queue %q: %w", queue, err)
	}
	return nil
}

// pass gives a queue's watch, if the worker has it, to the next idle one. With anew it is made if nobody is noted to have it.
func (c *Client) pass(ctx context.Context, queue, worker string, anew bool) error {
	return c.do(ctx, passScript, []string{wire.WatchKey(queue), wire.WatcherKey(queue)}, worker, flag(anew)).Err()
}

// mood is what a lane's last fetch has told about waiting.
type mood struct {
	paused   bool
	blocked  bool // there are only jobs whose earlier attempt still runs here
	watching bool // the worker has the queue's watch
	unnoted  bool // it has taken the watch from its list, and not told Redis yet
	alone    bool // it has handed the watch on, and nobody stood in line for it
}

// fetched keeps what a fetch tells about waiting.
func (l *lane) fetched(f Fetched, watching bool) {
	l.change(func(m *mood) {
		*m = mood{paused: f.Paused, blocked: f.HeldBack > 0 && len(f.Jobs) == 0, watching: watching}
	})
}

func (l *lane) setWatching(has bool) {
	l.change(func(m *mood) { m.watching, m.unnoted, m.alone = has, false, false })
}

func (l *lane) mood() mood {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waits
}

func (l *lane) change(how func(*mood)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	how(&l.waits)
}
