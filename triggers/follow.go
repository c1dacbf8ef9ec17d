package triggers

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/redis/go-redis/v9"
)

// The times of following the store.
const (
	// beatEvery is how often a process reports, and looks for changes of which it wasn't told.
	beatEvery = 5 * time.Second
	// lookApart bounds the looks while many changes are made.
	lookApart = 100 * time.Millisecond
	// listenCheck is how often a silent subscription is proven to be alive.
	listenCheck = 3 * time.Second
)

// followStore takes the changes of the store and reports what this process runs, until ctx ends. It is woken by each change; a slow
// look finds those whose message was lost.
func (r *Rules) followStore(ctx context.Context) {
	sub := r.from.Store.rdb.Subscribe(ctx, r.from.Store.keys.changed)
	defer func() { _ = sub.Close() }()
	messages := sub.ChannelWithSubscriptions(redis.WithChannelHealthCheckInterval(listenCheck))
	beat := time.NewTimer(0)
	defer beat.Stop()
	look := time.NewTimer(beatEvery)
	defer look.Stop()
	f := &follower{Rules: r}
	defer f.leave(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case _, open := <-messages: // a change, or the subscription was lost and is made again: what came between is unknown
			if !open {
				messages = nil
			}
			look.Reset(max(0, lookApart-time.Since(f.looked)))
		case <-r.relook:
			look.Reset(max(0, lookApart-time.Since(f.looked)))
		case <-look.C:
			f.beat(ctx)
		case <-beat.C:
			f.beat(ctx)
			beat.Reset(beatEvery*3/4 + rand.N(beatEvery/2)) // a fleet's clocks are to stay apart
		}
	}
}

// follower is one Run of rules with a store.
type follower struct {
	*Rules
	looked   time.Time
	reported string // the set that was written last
	down     time.Time
}

// beat reports what this process runs, takes what has changed, and reports that.
func (f *follower) beat(ctx context.Context) {
	f.looked = time.Now()
	at, err := f.report(ctx)
	if err == nil {
		var changed bool
		if changed, err = f.follow(ctx, at); changed && err == nil {
			_, err = f.report(ctx)
		}
	}
	switch {
	case ctx.Err() != nil:
	case err != nil && f.down.IsZero():
		f.down = time.Now()
		f.log.Warn("triggers: Redis refuses or doesn't answer, the rules stay as they are; trying on", "err", err)
	case err == nil && !f.down.IsZero():
		f.log.Info("triggers: the store answers again", "after", time.Since(f.down).Round(time.Millisecond))
		f.down = time.Time{}
	}
}

// follow takes the store's rules if they have changed.
func (f *follower) follow(ctx context.Context, at version) (changed bool, err error) {
	f.mu.Lock()
	have := f.stored.version
	watchOthers := !f.ownSince
	f.mu.Unlock()
	if watchOthers {
		if err := f.seeOthers(ctx); err != nil {
			return false, err
		}
	}
	switch {
	case at.epoch == "":
		f.keepStored()
	case at != have:
		snap, err := f.from.Store.snapshot(ctx)
		if err != nil {
			return false, err
		}
		if snap.epoch == "" {
			return false, nil // flushed between the two reads
		}
		f.takeStored(snap)
		return true, nil
	}
	before := f.set.Load()
	f.cureStored()
	return f.set.Load() != before, nil
}

// seeOthers looks whether another process has rules of its own.
func (r *Rules) seeOthers(ctx context.Context) error {
	records, err := r.from.Store.processRecords(ctx)
	if err != nil {
		return err
	}
	others := false
	for _, p := range records {
		others = others || p.Own && p.ID != r.id
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if others != r.othersOwn {
		r.othersOwn = others
		r.openGate()
		if others && r.stored.epoch != "" {
			r.log.Warn("triggers: another process of the group has rules of files or code that this one hasn't, so this one takes no events; give both the same files",
				"group", r.compiler.cfg.Group)
		}
	}
	return nil
}

// leave takes the process off the list. It has ended for the others even if Redis doesn't hear it: the report runs out.
func (f *follower) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := f.from.Store.forget(ctx, f.id); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		f.log.Debug("triggers: the report of this process stays until it runs out", "err", err)
	}
}
