package worker

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/bellhop-dev/bellhop/queue"
)

// dispatch fetches jobs for free slots until ctx ends, and returns once no fetch is under way.
func (p *pool) dispatch(ctx context.Context) {
	var fetching sync.WaitGroup
	defer p.undispatched()
	defer p.readers.Wait()
	defer fetching.Wait()
	for {
		n, lanes := p.next()
		if n < p.enough {
			// Runners that can end their jobs now go first, so that one fetch fills all their slots.
			runtime.Gosched()
			n, lanes = p.next()
		}
		if n > 0 && len(lanes) > 0 && ctx.Err() == nil {
			p.take(ctx, &fetching, n, lanes)
			continue
		}
		p.ringFor(p.lanes)
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		}
	}
}

// wholeFetch is how many slots are filled at once. Of many more, a fetch fills half, so that these jobs run while Redis sees to the other half.
const wholeFetch = 32

// fetchSizes are how many slots are worth a fetch without waiting for more, and the most that one fills.
func fetchSizes(slots int) (enough, most int) {
	if slots <= wholeFetch {
		return slots, slots
	}
	most = max(wholeFetch, slots/2)
	return most / 4, most
}

// next are the slots to fill and the lanes to fill them from.
func (p *pool) next() (int, []*lane) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := min(p.room(), p.most)
	if n <= 0 {
		return 0, nil
	}
	lanes := p.nextLanes[:0]
	for _, l := range p.lanes {
		if l.state == laneReady {
			lanes = append(lanes, l)
		}
	}
	p.nextLanes = lanes
	return n, lanes
}

// ringFor has ends written that no fetch takes along.
func (p *pool) ringFor(lanes []*lane) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range lanes {
		if len(l.ends) > 0 && l.state != laneFetching {
			l.ring()
		}
	}
}

// undispatched has all ends written that come from now on: no fetch takes them along any more.
func (p *pool) undispatched() {
	p.mu.Lock()
	p.dispatched = true
	p.mu.Unlock()
	p.ringFor(p.lanes)
}

// take shares n slots among lanes that may have jobs, and fetches for them.
func (p *pool) take(ctx context.Context, fetching *sync.WaitGroup, n int, lanes []*lane) {
	switch {
	case len(p.lanes) == 1:
		p.reserve(lanes[0], n)
		p.fetch(ctx, lanes[0], n)
	case p.w.cfg.StrictPriority:
		p.takeStrictly(ctx, fetching, n, lanes)
	default:
		p.takeShares(ctx, fetching, n, lanes)
	}
}

// patience is how long the other queues wait for one whose server does not answer.
const patience = 50 * time.Millisecond

// takeStrictly asks a queue only for what those before it have not filled.
func (p *pool) takeStrictly(ctx context.Context, fetching *sync.WaitGroup, n int, lanes []*lane) {
	for i, l := range lanes {
		if n == 0 {
			p.skip(fetching, lanes[i:])
			return
		}
		got := make(chan int, 1)
		slots := n // the fetch's own: it may start when n has changed
		p.reserve(l, slots)
		fetching.Go(func() { got <- p.fetch(ctx, l, slots) })
		n -= within(got, slots)
	}
}

// within is the answer, or what to assume when it does not come in time.
func within(got <-chan int, otherwise int) int {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case n := <-got:
		return n
	case <-timer.C:
		return otherwise
	}
}

// takeShares gives each slot to a queue drawn by weight, as asynq draws for each job, and asks all of them at once.
func (p *pool) takeShares(ctx context.Context, fetching *sync.WaitGroup, n int, lanes []*lane) {
	shares := draw(n, lanes)
	got := make(chan int, len(lanes))
	asked := 0
	var left []*lane
	for i, l := range lanes {
		if shares[i] == 0 {
			left = append(left, l)
			continue
		}
		asked++
		p.reserve(l, shares[i])
		fetching.Go(func() { got <- p.fetch(ctx, l, shares[i]) })
	}
	p.skip(fetching, left)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for range asked {
		select {
		case <-got:
		case <-timer.C:
			return
		}
	}
}

// draw deals n slots by weight.
func draw(n int, lanes []*lane) []int {
	shares := make([]int, len(lanes))
	if len(lanes) == 1 {
		shares[0] = n
		return shares
	}
	sum := 0
	for _, l := range lanes {
		sum += l.weight
	}
	for range n {
		at := rand.IntN(sum)
		for i, l := range lanes {
			if at -= l.weight; at < 0 {
				shares[i]++
				break
			}
		}
	}
	return shares
}

// skip lets others look into queues that had no slot left here.
func (p *pool) skip(fetching *sync.WaitGroup, lanes []*lane) {
	p.ringFor(lanes)
	for _, l := range lanes {
		fetching.Go(func() { p.passOn(p.fetches, l) })
	}
}

// reserve sets slots aside for a fetch that is about to go out, so that dispatch, which does not wait for a slow one, gives none twice.
func (p *pool) reserve(l *lane, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free -= n
	l.state = laneFetching
}

// fetch takes up to n jobs, whose slots are reserved, and starts them. It answers how many. The queue's ends go along.
func (p *pool) fetch(ctx context.Context, l *lane, n int) int {
	batch := p.riders(l)
	stall := time.AfterFunc(stallTime, func() { p.stalled(l, true) })
	answer := p.queue.Turn(p.fetches, l.name, n, batch, func(errs []error) { p.answered(l, batch, errs) })
	stall.Stop()
	p.stalled(l, false)
	if p.goOn(l, answer) {
		p.readers.Go(func() {
			got, err := answer.Read()
			p.receive(ctx, l, n, got, err)
			notify(p.wake) // slots may have come back
		})
		return n
	}
	got, err := answer.Read()
	p.receive(ctx, l, n, got, err)
	p.judge(l, got, err)
	notify(p.wake) // slots came back, and dispatch may have stopped waiting for this answer
	return len(got.Jobs)
}

// stallTime is how long ends wait for a fetch that is under way. One connection may stand still while the others don't.
const stallTime = 20 * time.Millisecond

// stalled notes that a fetch holds ends up, or no longer does.
func (p *pool) stalled(l *lane, is bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.stalled = is && l.state == laneFetching
	if l.stalled && len(l.ends) > 0 {
		l.ring()
	}
}

// goOn tells that the next fetch may go out while this one's answer is read. So Redis has work meanwhile.
func (p *pool) goOn(l *lane, answer *queue.Answer) bool {
	if len(p.lanes) > 1 || !answer.More() {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.room() < p.enough {
		return false
	}
	l.state, l.failures = laneReady, 0
	return true
}

// receive starts the jobs that a fetch has brought.
func (p *pool) receive(ctx context.Context, l *lane, n int, got queue.Fetched, err error) {
	if err != nil {
		p.redis.failed("fetch from "+l.name, err)
	} else {
		p.redis.answered("fetch from " + l.name)
	}
	p.tell(l, got)
	p.start(ctx, l, n, got.Jobs)
}

func (p *pool) tell(l *lane, got queue.Fetched) {
	if got.Orphans > 0 || got.Undecodable > 0 {
		p.log.Warn("jobs that can't run were taken out of the queue", "queue", l.name,
			"without_body", got.Orphans, "undecodable", got.Undecodable)
	}
}

// start gives jobs to runners, and gives back the slots of n that they don't need.
func (p *pool) start(ctx context.Context, l *lane, n int, jobs []*queue.Job) {
	if len(jobs) > 0 && ctx.Err() != nil {
		p.mu.Lock()
		p.unstarted = append(p.unstarted, jobs...)
		p.mu.Unlock()
		return
	}
	attempts := make([]*attempt, len(jobs))
	now := time.Now()
	for i, held := range jobs {
		attempts[i] = p.newAttempt(l, held, now)
	}
	p.mu.Lock()
	p.free += n - len(attempts)
	for _, a := range attempts {
		p.running.add(a)
	}
	p.runners.todo = append(p.runners.todo, attempts...)
	call := p.runners.call(p.startRunner)
	p.mu.Unlock()
	if call != nil {
		call()
	}
}

// judge decides when to ask the queue again.
func (p *pool) judge(l *lane, got queue.Fetched, err error) {
	if err != nil {
		p.rest(l)
		return
	}
	p.mu.Lock()
	l.failures = 0
	if got.Left > 0 && !got.Paused {
		l.state = laneReady
		p.mu.Unlock()
		return
	}
	l.state = laneWaiting
	p.mu.Unlock()
	notify(l.empty)
}

// jitter shortens a pause by up to half.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
