package events

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed hold.lua
	holdSource string
	//go:embed claim.lua
	claimSource string
	//go:embed leave.lua
	leaveSource string

	holdScript  = redis.NewScript(holdSource)
	claimScript = redis.NewScript(claimSource)
	leaveScript = redis.NewScript(leaveSource)
)

// holdChunk is how many holds one call renews.
const holdChunk = 500

// keepHold tells Redis, three times in each ClaimAfter, that this consumer lives: its events are not claimable.
func (s *session) keepHold(ctx context.Context) {
	every := time.NewTicker(s.client.cfg.ClaimAfter / 3)
	defer every.Stop()
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		_, err := s.renew(ctx, s.snapshot(), false)
		if err == nil {
			err = s.outage.note("renew the bell", s.client.rdb.PExpire(ctx, s.bell, s.bellLife()).Err())
		}
		switch {
		case err != nil:
			failures++
		case failures > 0:
			failures = 0
			s.waitBeforeClaiming()
		}
	}
}

func (s *session) snapshot() []*item {
	s.mu.Lock()
	defer s.mu.Unlock()
	items := make([]*item, 0, len(s.held))
	for _, it := range s.held {
		items = append(items, it)
	}
	return items
}

// renew keeps the items from being claimed, and returns how often each was handed out: 0 if another consumer has it.
func (s *session) renew(ctx context.Context, items []*item, handOut bool) ([]int, error) {
	counts := make([]int, 0, len(items))
	for chunk := range slices.Chunk(items, holdChunk) {
		args := make([]any, 0, 3+len(chunk))
		args = append(args, s.group, s.name, boolToInt(handOut))
		for _, it := range chunk {
			args = append(args, it.id)
		}
		answer, err := holdScript.Run(ctx, s.client.rdb, []string{s.client.keys.stream}, args...).Int64Slice()
		if isNoGroup(err) {
			answer, err = make([]int64, len(chunk)), nil // flushed: nothing is pending any more
		}
		if err == nil && len(answer) != len(chunk) {
			err = fmt.Errorf("%d answers about %d events", len(answer), len(chunk))
		}
		if s.outage.note("hold events", err) != nil {
			return nil, err
		}
		for _, n := range answer {
			counts = append(counts, int(n))
		}
	}
	return counts, nil
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// waitBeforeClaiming gives every other consumer the time to renew its hold: after an outage of Redis all of them look
// silent, and none of them is dead.
func (s *session) waitBeforeClaiming() {
	s.notClaimBefore.Store(time.Now().Add(s.client.cfg.ClaimAfter).UnixNano())
}

// claim takes over and handles the events of consumers that fell silent, until there are none.
func (s *session) claim(ctx context.Context) {
	for from := "0-0"; ctx.Err() == nil && !s.overloaded() && time.Now().UnixNano() >= s.notClaimBefore.Load(); {
		next, items, err := s.claimSome(ctx, from)
		if isNoGroup(err) {
			return // the reader makes it anew
		}
		if s.outage.note("claim events", err) != nil {
			s.waitBeforeClaiming()
			return
		}
		if len(items) > 0 {
			s.log.Info("events: took over the events of a consumer that left or fell silent", "events", len(items))
			s.deliver(ctx, items)
		}
		if next == "0-0" {
			return
		}
		from = next
	}
}

func (s *session) claimSome(ctx context.Context, from string) (next string, items []*item, err error) {
	cfg := s.client.cfg
	answer, err := claimScript.Run(ctx, s.client.rdb, []string{s.client.keys.stream},
		s.group, s.name, cfg.ClaimAfter.Milliseconds(), from, cfg.Batch).Slice()
	if err != nil {
		return "", nil, err
	}
	if len(answer) != 2 {
		return "", nil, fmt.Errorf("unexpected answer of Redis: %v", answer)
	}
	next, _ = answer[0].(string)
	entries, _ := answer[1].([]any)
	for _, entry := range entries {
		it, err := claimedItem(entry)
		if err != nil {
			return "", nil, err
		}
		// An own one comes back when its hold wasn't renewed in time: it is in work here already.
		if !s.holds(it.id) {
			items = append(items, it)
		}
	}
	s.hold(items...)
	return next, items, nil
}

func claimedItem(entry any) (*item, error) {
	parts, _ := entry.([]any)
	if len(parts) != 3 {
		return nil, fmt.Errorf("unexpected answer of Redis: %v", entry)
	}
	id, _ := parts[0].(string)
	count, _ := parts[1].(int64)
	pairs, _ := parts[2].([]any)
	fields := make(map[string]any, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		name, _ := pairs[i].(string)
		fields[name] = pairs[i+1]
	}
	return newItem(id, fields, int(count)), nil
}

// leave takes this consumer out of the group. What it holds unhandled others may claim at once, and they are told to.
func (s *session) leave(ctx context.Context) {
	// ctx has ended: what follows is bounded, and an outage costs others a claim after ClaimAfter, nothing more.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleFor)
	defer cancel()
	s.acknowledge(ctx, nil)
	args := []any{s.group, s.name}
	for _, it := range s.snapshot() {
		if !it.seen {
			args = append(args, it.id)
		}
	}
	released, err := leaveScript.Run(ctx, s.client.rdb, []string{s.client.keys.stream}, args...).Int()
	if isNoGroup(err) || s.outage.note("leave the group", err) == nil {
		_ = s.client.rdb.Del(ctx, s.bell).Err() // expires otherwise
	}
	if released > 0 {
		s.log.Info("events: released events that were not handled", "events", released)
		s.ringOthers(ctx)
	}
}

func (s *session) ringOthers(ctx context.Context) {
	others, err := s.client.rdb.XInfoConsumers(ctx, s.client.keys.stream, s.group).Result()
	if err != nil {
		return // they look by themselves, twice in each ClaimAfter
	}
	for _, other := range others {
		if other.Name != s.name {
			s.ring(ctx, s.client.bellKey(s.group, other.Name), false)
		}
	}
}

// keepTrimmed removes what nobody needs any more: old events, and the names of crashed consumers.
func (s *session) keepTrimmed(ctx context.Context) {
	for sleep(ctx.Done(), jitter(s.trimEvery)) {
		trimmed, err := s.client.Trim(ctx)
		if s.outage.note("trim the stream", err) != nil {
			continue
		}
		if s.onTrim != nil {
			s.onTrim(ctx, trimmed.FirstID)
		}
		_ = s.outage.note("remove dead consumers", s.removeDead(ctx))
	}
}

// removeDead deletes consumers without a bell (they crashed) of which everything was claimed.
func (s *session) removeDead(ctx context.Context) error {
	k := s.client.keys
	consumers, err := s.client.rdb.XInfoConsumers(ctx, k.stream, s.group).Result()
	if err != nil {
		return err
	}
	for _, other := range consumers {
		if other.Pending > 0 || other.Name == s.name {
			continue
		}
		bells, err := s.client.rdb.Exists(ctx, s.client.bellKey(s.group, other.Name)).Result()
		if err != nil {
			return err
		}
		if bells > 0 {
			continue
		}
		if err := leaveScript.Run(ctx, s.client.rdb, []string{k.stream}, s.group, other.Name).Err(); err != nil {
			return err
		}
	}
	return nil
}
