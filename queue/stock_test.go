package queue_test

import (
	"context"
	"errors"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/wire"
)

// stock runs asynq's own scripts, read from its source, with the arguments that its code gives them (internal/rdb/rdb.go).
type stock struct {
	t   fataler
	ctx ctxer
	rdb redis.UniversalClient
	lua map[string]string
}

// testing and rapid have these in common.
type (
	fataler interface {
		Helper()
		Fatalf(format string, args ...any)
	}
	ctxer interface{ Context() context.Context }
)

var stockSource = sync.OnceValues(func() (map[string]string, error) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/hibiken/asynq").Output()
	if err != nil {
		return nil, err
	}
	source, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "internal", "rdb", "rdb.go"))
	if err != nil {
		return nil, err
	}
	scripts := make(map[string]string)
	for _, m := range regexp.MustCompile("(?s)var (\\w+) = redis\\.NewScript\\(`(.*?)`\\)").FindAllStringSubmatch(string(source), -1) {
		scripts[m[1]] = m[2]
	}
	return scripts, nil
})

func newStock(t testing.TB, rdb redis.UniversalClient) *stock {
	t.Helper()
	lua, err := stockSource()
	if err != nil {
		t.Fatalf("read asynq's source: %v", err)
	}
	return &stock{t: t, ctx: t, rdb: rdb, lua: lua}
}

func (s *stock) run(script string, keys []string, args ...any) any {
	s.t.Helper()
	text, ok := s.lua[script]
	if !ok {
		s.t.Fatalf("asynq has no script %s", script)
	}
	reply, err := s.rdb.Eval(s.ctx.Context(), text, keys, args...).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		s.t.Fatalf("asynq's %s: %v", script, err)
	}
	return reply
}

func (s *stock) encode(m *wire.Message) []byte {
	data, err := m.Encode()
	if err != nil {
		s.t.Fatalf("%v", err)
	}
	return data
}

const (
	stockMax   = int64(math.MaxInt64)
	stockLease = 30 * time.Second
)

func (s *stock) enqueue(m *wire.Message, ttl time.Duration) any {
	s.rdb.SAdd(s.ctx.Context(), wire.AllQueues, q)
	now := time.Now().UnixNano()
	if ttl > 0 {
		return s.run("enqueueUniqueCmd", []string{m.UniqueKey, wire.JobKey(q, m.ID), wire.PendingKey(q)}, m.ID, int(ttl.Seconds()), s.encode(m), now)
	}
	return s.run("enqueueCmd", []string{wire.JobKey(q, m.ID), wire.PendingKey(q)}, s.encode(m), m.ID, now)
}

func (s *stock) schedule(m *wire.Message, at time.Time, ttl time.Duration) any {
	s.rdb.SAdd(s.ctx.Context(), wire.AllQueues, q)
	if ttl > 0 {
		return s.run("scheduleUniqueCmd", []string{m.UniqueKey, wire.JobKey(q, m.ID), wire.ScheduledKey(q)}, m.ID, int(ttl.Seconds()), at.Unix(), s.encode(m))
	}
	return s.run("scheduleCmd", []string{wire.JobKey(q, m.ID), wire.ScheduledKey(q)}, s.encode(m), at.Unix(), m.ID)
}

func (s *stock) group(m *wire.Message, ttl time.Duration) any {
	s.rdb.SAdd(s.ctx.Context(), wire.AllQueues, q)
	keys := []string{wire.JobKey(q, m.ID), wire.GroupKey(q, m.GroupKey), wire.AllGroups(q)}
	if ttl > 0 {
		return s.run("addToGroupUniqueCmd", append(keys, m.UniqueKey), s.encode(m), m.ID, time.Now().Unix(), m.GroupKey, int(ttl.Seconds()))
	}
	return s.run("addToGroupCmd", keys, s.encode(m), m.ID, time.Now().Unix(), m.GroupKey)
}

// dequeue returns nil when there is nothing.
func (s *stock) dequeue() *wire.Message {
	reply := s.run("dequeueCmd", []string{wire.PendingKey(q), wire.PausedKey(q), wire.ActiveKey(q), wire.LeaseKey(q)},
		time.Now().Add(stockLease).Unix(), wire.JobPrefix(q))
	text, ok := reply.(string)
	if !ok {
		return nil
	}
	m, err := wire.Decode([]byte(text))
	if err != nil {
		s.t.Fatalf("%v", err)
	}
	return m
}

func (s *stock) done(m *wire.Message) {
	now := time.Now()
	keys := []string{wire.ActiveKey(q), wire.LeaseKey(q), wire.JobKey(q, m.ID), wire.ProcessedKey(q, now), wire.ProcessedTotalKey(q)}
	args := []any{m.ID, now.Add(wire.StatsTTL).Unix(), stockMax}
	if m.UniqueKey != "" {
		s.run("doneUniqueCmd", append(keys, m.UniqueKey), args...)
		return
	}
	s.run("doneCmd", keys, args...)
}

func (s *stock) complete(m *wire.Message) {
	now := time.Now()
	completed := *m
	completed.CompletedAt = now.Unix()
	keys := []string{wire.ActiveKey(q), wire.LeaseKey(q), wire.CompletedKey(q), wire.JobKey(q, m.ID), wire.ProcessedKey(q, now), wire.ProcessedTotalKey(q)}
	args := []any{m.ID, now.Add(wire.StatsTTL).Unix(), now.Unix() + m.Retention, s.encode(&completed), stockMax}
	if m.UniqueKey != "" {
		s.run("markAsCompleteUniqueCmd", append(keys, m.UniqueKey), args...)
		return
	}
	s.run("markAsCompleteCmd", keys, args...)
}

func (s *stock) requeue(m *wire.Message) {
	s.run("requeueCmd", []string{wire.ActiveKey(q), wire.LeaseKey(q), wire.PendingKey(q), wire.JobKey(q, m.ID)}, m.ID)
}

func (s *stock) retry(m *wire.Message, delay time.Duration, reason string, failure bool) {
	now := time.Now()
	modified := *m
	if failure {
		modified.Retried++
	}
	modified.ErrorMsg, modified.LastFailedAt = reason, now.Unix()
	s.run("retryCmd", []string{
		wire.JobKey(q, m.ID), wire.ActiveKey(q), wire.LeaseKey(q), wire.RetryKey(q), wire.ProcessedKey(q, now), wire.FailedKey(q, now),
		wire.ProcessedTotalKey(q), wire.FailedTotalKey(q),
	}, m.ID, s.encode(&modified), now.Add(delay).Unix(), now.Add(wire.StatsTTL).Unix(), failure, stockMax)
}

func (s *stock) archive(m *wire.Message, reason string) {
	now := time.Now()
	modified := *m
	modified.ErrorMsg, modified.LastFailedAt = reason, now.Unix()
	s.run("archiveCmd", []string{
		wire.JobKey(q, m.ID), wire.ActiveKey(q), wire.LeaseKey(q), wire.ArchivedKey(q), wire.ProcessedKey(q, now), wire.FailedKey(q, now),
		wire.ProcessedTotalKey(q), wire.FailedTotalKey(q), wire.JobPrefix(q),
	}, m.ID, s.encode(&modified), now.Unix(), now.AddDate(0, 0, -90).Unix(), 10000, now.Add(wire.StatsTTL).Unix(), stockMax)
}

func (s *stock) forward() {
	for _, zset := range []string{wire.ScheduledKey(q), wire.RetryKey(q)} {
		for n := int64(1); n > 0; {
			now := time.Now()
			n, _ = s.run("forwardCmd", []string{zset, wire.PendingKey(q)}, now.Unix(), wire.JobPrefix(q), now.UnixNano(), wire.GroupKey(q, "")).(int64)
		}
	}
}

func (s *stock) deleteExpired() {
	for n := int64(1); n > 0; {
		n, _ = s.run("deleteExpiredCompletedTasksCmd", []string{wire.CompletedKey(q)}, time.Now().Unix(), wire.JobPrefix(q), 100).(int64)
	}
}

func (s *stock) reclaim() {
	s.run("reclaimStateAggregationSetsCmd", []string{wire.AllAggregationSets(q)}, time.Now().Unix())
}

func (s *stock) aggregate(group, set string, grace, delay time.Duration, size int) bool {
	now := time.Now()
	return s.run("aggregationCheckCmd", []string{wire.GroupKey(q, group), wire.AggregationSetKey(q, group, set), wire.AllAggregationSets(q), wire.AllGroups(q)},
		size, int64(delay.Seconds()), int64(grace.Seconds()), now.Add(2*time.Minute).Unix(), now.Unix(), group) == int64(1)
}

func (s *stock) readSet(group, set string) []string {
	reply, _ := s.run("readAggregationSetCmd", []string{wire.AggregationSetKey(q, group, set)}, wire.JobPrefix(q)).([]any)
	var got []string
	for _, data := range reply {
		m, err := wire.Decode([]byte(data.(string)))
		if err != nil {
			s.t.Fatalf("%v", err)
		}
		got = append(got, m.ID)
	}
	return got
}

func (s *stock) deleteSet(group, set string) {
	s.run("deleteAggregationSetCmd", []string{wire.AggregationSetKey(q, group, set), wire.AllAggregationSets(q)}, wire.JobPrefix(q))
}
