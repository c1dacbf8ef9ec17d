package queue

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/wire"
)

// When a worker is given up. A reaper goes by what it has seen itself, look by look, on one unbroken line to Redis: the other's
// beat stood still while everything else went on. So nobody steals after an outage, a freeze of his own, or by a wrong clock.
const (
	// How often a reaper looks: at others that hold jobs, at others that are idle, and whether there are others. While all are idle,
	// those who watch the same worker take turns: it is looked at every lookAtIdle at the latest, by one of them. Whoever sees that somebody
	// holds a job, or that a connection has gone, looks often from then on.
	lookEvery  = 250 * time.Millisecond
	lookAtIdle = 500 * time.Millisecond
	lookAround = 5 * time.Second

	// watchmen is how many watch each worker of a queue, in a fleet that is larger. All of them must die with it until the others
	// notice later.
	watchmen = 8

	// ringEvery is how often the reaper of a larger fleet asks who there is. It looks at its own part alone meanwhile.
	ringEvery = 2 * time.Second
	hundred   = 100 // of workers, for each of which they ask as much less often: all answers together grow with the fleet alone

	// lookLimit bounds one look.
	lookLimit = time.Second

	// deadAfter is how long the beat of a worker has stood still whose connection is gone, which was seen before.
	deadAfter = 1200 * time.Millisecond

	// lostAfter is the same for one whose connection was never seen: its process may have ended before this one began, or its
	// user may not subscribe.
	lostAfter = 3500 * time.Millisecond

	// frozenAfter is how long the beat of a worker has stood still whose connection is there: it beats every second with jobs,
	// every 5 s without.
	frozenAfter = 8 * time.Second

	// goneLooks is in how many looks, one after the other, the connection was gone.
	goneLooks = 2

	// deadLooks and frozenLooks are the looks for which the beat must have stood still.
	deadLooks   = 3
	frozenLooks = 10
)

// Reaping is what a reaper has done with one queue of one worker. Without a Worker it tells that its looks fail, or, with no Err, that
// they succeed again.
type Reaping struct {
	Queue  string
	Worker string
	Frozen bool // its connection is there, but it does not beat
	Jobs   []Reaped
	Err    error
}

// Reaper watches the other workers of a worker's queues, and takes the jobs of those that have died or stand still.
type Reaper struct {
	worker *Worker

	// MaxCrashes quarantine a job; see Client.Reap.
	maxCrashes int

	vigils    map[post]*vigil
	part      map[string][]string // by queue, who is watched of a larger fleet
	place     int64               // on the ring of the queue with the fewest others
	turns     int64               // how many take turns on it
	ringed    time.Time           // when it was seen who there is
	ringEvery time.Duration       // until that is asked again
	every     time.Duration       // until the next look
	looked    time.Time           // the last look that Redis answered
	failed    bool                // the last look
}

// post is a worker's place in a queue.
type post struct{ queue, worker string }

// vigil is what was seen of a worker without a break.
type vigil struct {
	beat  int64
	since time.Time // this beat was first seen
	looks int       // since then
	gone  int       // looks without its connection, the last ones
	met   bool      // its connection was seen
}

// Reaper returns a reaper for the worker's queues. maxCrashes is at least 1.
func (w *Worker) Reaper(maxCrashes int) *Reaper {
	return &Reaper{worker: w, maxCrashes: maxCrashes, vigils: make(map[post]*vigil)}
}

// Run watches until ctx ends, and tells by its own connection that this worker lives. On that connection others call: whoever left a
// queue without a keeper names it. It reports what it reaps, and each look that
// fails.
func (r *Reaper) Run(ctx context.Context, report func(Reaping)) {
	sub := r.worker.client.rdb.Subscribe(ctx, wire.AliveChannel(r.worker.id))
	defer func() { _ = sub.Close() }()
	calls := sub.Channel(redis.WithChannelHealthCheckInterval(frozenAfter)) // subscribes again after an outage
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case msg, open := <-calls:
			if !open {
				calls = nil // the client was closed: the looks will tell
				continue
			}
			r.worker.call(msg.Payload)
			continue
		case <-timer.C:
		}
		r.look(ctx, report)
		timer.Reset(r.every)
	}
}

func (r *Reaper) look(ctx context.Context, report func(Reaping)) {
	bounded, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	seen, err := r.see(bounded)
	now := time.Now()
	if err != nil {
		clear(r.vigils)
		r.failed, r.every = true, lookAtIdle
		if ctx.Err() == nil {
			report(Reaping{Err: fmt.Errorf("look at the other workers: %w", err)})
		}
		return
	}
	if r.failed {
		r.failed = false
		report(Reaping{})
	}
	if now.Sub(r.looked) > r.every+lookLimit {
		clear(r.vigils) // it was this process that stood still
	}
	r.looked = now
	r.pace(seen)
	own := seen.connected[r.worker.id]
	for p, beat := range seen.beats {
		v := r.watch(p, beat, now)
		v.mark(seen.connected[p.worker], own)
		if v.gone > 0 {
			r.every = lookEvery
		}
		if v.gone == 1 && v.met || v.gone == goneLooks && !v.met {
			// Long before it is given up: were it alive, there would be two who watch, for a while. What fails here, the reaping does.
			_ = r.worker.client.pass(bounded, p.queue, p.worker, true)
		}
		if dead, frozen := v.verdict(now); dead || frozen {
			r.reap(bounded, p, v.beat, frozen, report)
		}
	}
	for p := range r.vigils {
		if _, there := seen.beats[p]; !there {
			delete(r.vigils, p)
		}
	}
}

// pace sets when to look again.
func (r *Reaper) pace(s sight) {
	switch {
	case len(s.beats) == 0 && r.part == nil:
		r.every = lookAround
	case s.owned > int64(r.worker.Held()):
		r.every = lookEvery
	default:
		r.every = r.untilTurn(time.Now())
	}
}

// untilTurn is how long it is until this reaper's next turn. Those who watch the same worker have different ones, and none that follow each
// other are missing among them. Clocks that differ shift the turns, no more.
func (r *Reaper) untilTurn(now time.Time) time.Duration {
	turns, place := max(r.turns, 1), r.place
	if turns == watchmen+1 {
		place *= 2 // where the ring closes some turns are missing: not two of them that follow each other
	}
	turn := now.UnixNano() / int64(lookEvery)
	for next := turn + 1; ; next++ {
		if next%turns == place%turns {
			return time.Unix(0, next*int64(lookEvery)).Sub(now)
		}
	}
}

// sight is what one look saw.
type sight struct {
	beats     map[post]int64  // of those that this reaper watches
	owned     int64           // jobs that workers own, this one included
	connected map[string]bool // nil if Redis does not tell
}

// see asks for the beats, and for the connections if there are others.
func (r *Reaper) see(ctx context.Context) (sight, error) {
	var s sight
	var err error
	if r.part == nil || time.Since(r.ringed) >= r.ringEvery {
		s.beats, err = r.ring(ctx)
	} else {
		s.beats, err = r.beats(ctx)
	}
	if err != nil || len(s.beats) == 0 {
		return s, err
	}
	if s.owned, err = r.owned(ctx); err == nil {
		s.connected, err = r.connected(ctx, s.beats)
	}
	return s, err
}

// ring asks for all workers of the queues, and takes this reaper's part of them. A small fleet has no parts: everybody watches
// everybody, and each look asks anew.
func (r *Reaper) ring(ctx context.Context) (map[post]int64, error) {
	pipe := r.worker.client.rdb.Pipeline()
	lists := make([]*redis.ZSliceCmd, len(r.worker.names))
	for i, name := range r.worker.names {
		lists[i] = pipe.ZRangeWithScores(ctx, wire.BeatsKey(name), 0, -1)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	r.part, r.ringed, r.ringEvery = nil, time.Now(), ringEvery
	r.turns = 0
	part, large := make(map[string][]string, len(lists)), false
	beats := make(map[post]int64)
	for i, list := range lists {
		all := make(map[string]int64)
		for _, z := range list.Val() {
			if worker, _ := z.Member.(string); worker != r.worker.id {
				all[worker] = int64(z.Score)
			}
		}
		others := slices.Collect(maps.Keys(all))
		// The queue with the fewest others asks for the most looks.
		if turns := int64(min(len(others), watchmen) + 1); turns > 1 && (r.turns == 0 || turns < r.turns) {
			r.place, r.turns = rank(r.worker.id, others), turns
		}
		mine := next(r.worker.id, others)
		for _, worker := range mine {
			beats[post{r.worker.names[i], worker}] = all[worker]
		}
		if len(mine) > 0 {
			part[r.worker.names[i]] = mine
		}
		large = large || len(mine) < len(all)
		r.ringEvery = max(r.ringEvery, ringEvery*time.Duration(len(all)/hundred))
	}
	if large {
		r.part = part
	}
	return beats, nil
}

// next are the watchmen that follow a worker on the ring of a queue's workers. Their hashes order it: those of one machine, which die
// together, don't stand beside each other.
func next(worker string, others []string) []string {
	if len(others) <= watchmen {
		return others
	}
	own := place(worker)
	slices.SortFunc(others, func(a, b string) int { return cmp.Compare(place(a)-own, place(b)-own) })
	return others[:watchmen]
}

// rank is how many of the others stand before a worker on the ring.
func rank(worker string, others []string) (n int64) {
	own := place(worker)
	for _, other := range others {
		if place(other) < own {
			n++
		}
	}
	return n
}

// place is a worker's on the ring.
func place(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails
	// FNV's high bits hardly change with the last letters of a name; murmur's last steps mix them.
	sum := h.Sum64()
	sum = (sum ^ sum>>33) * 0xff51afd7ed558ccd
	sum = (sum ^ sum>>33) * 0xc4ceb9fe1a85ec53
	return sum ^ sum>>33
}

// beats asks for the beats of this reaper's part. Who has left shows none.
func (r *Reaper) beats(ctx context.Context) (map[post]int64, error) {
	pipe := r.worker.client.rdb.Pipeline()
	asked := make(map[string]*redis.FloatSliceCmd, len(r.part))
	for queue, workers := range r.part {
		asked[queue] = pipe.ZMScore(ctx, wire.BeatsKey(queue), workers...)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	beats := make(map[post]int64)
	for queue, cmd := range asked {
		for i, score := range cmd.Val() {
			if score == 0 {
				r.ringed = time.Time{} // the ring has changed
				continue
			}
			beats[post{queue, r.part[queue][i]}] = int64(score)
		}
	}
	return beats, nil
}

func (r *Reaper) owned(ctx context.Context) (int64, error) {
	pipe := r.worker.client.rdb.Pipeline()
	counts := make([]*redis.IntCmd, len(r.worker.names))
	for i, name := range r.worker.names {
		counts[i] = pipe.ZCard(ctx, wire.LeaseKey(name))
	}
	_, err := pipe.Exec(ctx)
	sum := int64(0)
	for _, n := range counts {
		sum += n.Val()
	}
	return sum, err
}

// connected asks whose alive channel has a subscriber. A user who may not ask sees nobody, himself included.
func (r *Reaper) connected(ctx context.Context, beats map[post]int64) (map[string]bool, error) {
	channels := make([]string, 0, len(beats)+1)
	workers := make(map[string]string, len(beats)+1)
	add := func(worker string) {
		channel := wire.AliveChannel(worker)
		if workers[channel] == "" {
			workers[channel] = worker
			channels = append(channels, channel)
		}
	}
	add(r.worker.id)
	for p := range beats {
		add(p.worker)
	}
	rdb := r.worker.client.rdb
	if cluster, ok := rdb.(*redis.ClusterClient); ok {
		// Each node knows its own subscribers. A client subscribes at the master of the channel's slot.
		master, err := cluster.MasterForKey(ctx, wire.AliveTag)
		if err != nil {
			return nil, err
		}
		rdb = master
	}
	counts, err := rdb.PubSubNumSub(ctx, channels...).Result()
	if err != nil {
		if !unanswered(err) {
			return nil, nil
		}
		return nil, err
	}
	connected := make(map[string]bool, len(counts))
	for channel, n := range counts {
		connected[workers[channel]] = n > 0
	}
	return connected, nil
}

func (r *Reaper) watch(p post, beat int64, now time.Time) *vigil {
	v := r.vigils[p]
	switch {
	case v == nil:
		v = &vigil{beat: beat, since: now}
		r.vigils[p] = v
	case v.beat != beat:
		v.beat, v.since, v.looks, v.gone = beat, now, 0, 0
	default:
		v.looks++
	}
	return v
}

// mark notes whether the worker's connection is there. Without one's own, nothing follows from the lack of it: it was Redis that
// went away.
func (v *vigil) mark(connected, own bool) {
	switch {
	case connected:
		v.met, v.gone = true, 0
	case !own:
		v.met, v.gone = false, 0
	default:
		v.gone++
	}
}

func (v *vigil) verdict(now time.Time) (dead, frozen bool) {
	still := now.Sub(v.since)
	if v.gone >= goneLooks {
		enough := lostAfter
		if v.met {
			enough = deadAfter
		}
		return v.looks >= deadLooks && still >= enough, false
	}
	return false, v.looks >= frozenLooks && still >= frozenAfter
}

func (r *Reaper) reap(ctx context.Context, p post, beat int64, frozen bool, report func(Reaping)) {
	crashes := r.maxCrashes
	if frozen {
		crashes = 0
	}
	jobs, alive, err := r.worker.client.Reap(ctx, p.queue, LastBeat{Worker: p.worker, At: time.UnixMilli(beat)}, crashes)
	if err == nil && alive {
		return // it has beaten since, or another reaper was faster
	}
	delete(r.vigils, p)
	r.ringed = time.Time{} // those behind it on the ring are this worker's now
	r.worker.call(p.queue) // the dead may have kept it
	report(Reaping{Queue: p.queue, Worker: p.worker, Frozen: frozen, Jobs: jobs, Err: err})
}
