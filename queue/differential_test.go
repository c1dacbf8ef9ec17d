package queue_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/bellhop-dev/bellhop/internal/redistest"
	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

// Random lives of jobs, led twice: on one Redis by bellhop, on another by asynq's own scripts. After every step both hold the
// same, but for what docs/differences.md lists. The numbers below are those of that list.
func TestEveryTransitionIsAsynqs(t *testing.T) {
	t.Parallel()
	ours, theirs := redistest.New(t), redistest.New(t)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		for _, rdb := range []redis.UniversalClient{ours, theirs} {
			if err := rdb.FlushAll(t.Context()).Err(); err != nil {
				rt.Fatal(err)
			}
		}
		client := queue.New(ours)
		w, err := client.NewWorker(fmt.Sprintf("worker-%d", n), q)
		if err != nil {
			rt.Fatal(err)
		}
		p := &pair{
			T: rt, start: time.Now().Truncate(time.Second), ours: ours, theirs: theirs, client: client, worker: w,
			stock: newStock(t, theirs), running: make(map[string]running), sets: make(map[string]string),
		}
		p.stock.t = rt
		rt.Repeat(map[string]func(*rapid.T){
			"":          func(*rapid.T) { p.same() },
			"enqueue":   p.enqueue,
			"fetch":     p.fetch,
			"end":       p.end,
			"time":      p.timePasses,
			"due":       p.due,
			"clean":     p.clean,
			"pause":     p.pause,
			"aggregate": p.aggregate,
			"set":       p.finishSet,
			"conflict":  p.conflict,
		})
	})
}

// pair is one life in two worlds.
type pair struct {
	*rapid.T
	start        time.Time
	ours, theirs redis.UniversalClient
	client       *queue.Client
	worker       *queue.Worker
	stock        *stock
	ids          int
	running      map[string]running
	sets         map[string]string // their set -> our set
}

type running struct {
	job *queue.Job
	msg *wire.Message
}

func (p *pair) message(t *rapid.T) *wire.Message {
	p.ids++
	m := message(fmt.Sprintf("job-%d", p.ids))
	m.Retry = rapid.IntRange(0, 3).Draw(t, "retries")
	m.Retention = rapid.SampledFrom([]int64{0, 600}).Draw(t, "retention")
	m.Payload = rapid.SliceOfN(rapid.Byte(), 1, 8).Draw(t, "payload")
	if rapid.Bool().Draw(t, "headers") {
		m.Headers = map[string]string{"k": "v"}
	}
	return m
}

func (p *pair) enqueue(t *rapid.T) {
	m := p.message(t)
	var ttl time.Duration
	if rapid.Bool().Draw(t, "unique") {
		ttl = 1000 * time.Second
		m.UniqueKey = wire.UniqueKey(q, m.Type, m.Payload[:1])
	}
	e := queue.Entry{Message: m, UniqueFor: ttl}
	var want any
	switch rapid.SampledFrom([]string{"pending", "scheduled", "group"}).Draw(t, "where") {
	case "pending":
		want = p.stock.enqueue(m, ttl)
	case "scheduled":
		e.At = p.start.Add(100 * time.Duration(rapid.IntRange(1, 9).Draw(t, "in")) * time.Second)
		if ttl > 0 {
			want = p.stock.schedule(m, e.At, ttl+time.Until(e.At))
		} else {
			want = p.stock.schedule(m, e.At, 0)
		}
	case "group":
		m.GroupKey = rapid.SampledFrom([]string{"g1", "g2"}).Draw(t, "group")
		want = p.stock.group(m, ttl)
	}
	got := p.client.Enqueue(t.Context(), []queue.Entry{e})[0]
	if (want == int64(1)) != (got.Err == nil) || (want == int64(-1)) != errors.Is(got.Err, queue.ErrNotUnique) {
		t.Fatalf("asynq says %v, we say %v", want, got.Err)
	}
}

// conflict asks for an id that stands somewhere. (With a lock, asynq takes the lock even so: 6.)
func (p *pair) conflict(t *rapid.T) {
	if p.ids == 0 {
		t.Skip("no job yet")
	}
	m := message(fmt.Sprintf("job-%d", rapid.IntRange(1, p.ids).Draw(t, "id")))
	want := p.stock.enqueue(m, 0)
	got := p.client.Enqueue(t.Context(), []queue.Entry{{Message: m}})[0]
	if (want == int64(0)) != errors.Is(got.Err, queue.ErrIDTaken) {
		t.Fatalf("asynq says %v, we say %v", want, got.Err)
	}
}

func (p *pair) fetch(t *rapid.T) {
	n := rapid.IntRange(1, 4).Draw(t, "n")
	got, err := p.worker.Fetch(t.Context(), q, n)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		m := p.stock.dequeue()
		if m == nil {
			if len(got.Jobs) != i {
				t.Fatalf("asynq takes %d, we take %d", i, len(got.Jobs))
			}
			break
		}
		if i >= len(got.Jobs) || got.Jobs[i].ID != m.ID {
			t.Fatalf("asynq takes %s as number %d, we take %v", m.ID, i, idsOf(got.Jobs))
		}
		if diff := cmp.Diff(m, got.Jobs[i].Message); diff != "" && m.LastFailedAt == 0 {
			t.Fatal(diff)
		}
		p.running[m.ID] = running{job: got.Jobs[i], msg: m}
	}
}

func (p *pair) end(t *rapid.T) {
	if len(p.running) == 0 {
		t.Skip("nothing runs")
	}
	id := rapid.SampledFrom(sortedKeys(p.running)).Draw(t, "id")
	r := p.running[id]
	delete(p.running, id)
	delay := 100 * time.Duration(rapid.IntRange(1, 9).Draw(t, "delay")) * time.Second
	var end queue.End
	what := rapid.SampledFrom([]string{"done", "complete", "retry", "again", "archive", "back"}).Draw(t, "what")
	switch what {
	case "done":
		p.stock.done(r.msg)
		end = queue.Done(r.job)
	case "complete":
		if r.msg.Retention == 0 {
			p.stock.done(r.msg)
		} else {
			p.stock.complete(r.msg)
		}
		end = queue.Complete(r.job, nil)
	case "retry":
		p.stock.retry(r.msg, delay, "boom", true)
		end = queue.Retry(r.job, delay, "boom")
	case "again":
		p.stock.retry(r.msg, delay, "later", false)
		end = queue.Again(r.job, delay, "later")
	case "archive":
		p.stock.archive(r.msg, "dead")
		if r.msg.UniqueKey != "" && p.theirs.Get(t.Context(), r.msg.UniqueKey).Val() == id {
			p.theirs.Del(t.Context(), r.msg.UniqueKey) // 3
		}
		end = queue.Archive(r.job, "dead")
	case "back":
		p.stock.requeue(r.msg)
		end = queue.HandBack(r.job)
	}
	if err := p.worker.Finish(t.Context(), end)[0]; err != nil {
		t.Fatal(err)
	}
	if what == "back" {
		if since := p.ours.HGet(t.Context(), wire.JobKey(q, id), "pending_since").Val(); since != "" {
			p.theirs.HSet(t.Context(), wire.JobKey(q, id), "pending_since", since) // 2
		}
	}
}

// timePasses makes the earliest entry of a zset due, in both worlds.
func (p *pair) timePasses(t *rapid.T) {
	key := rapid.SampledFrom([]string{
		wire.ScheduledKey(q), wire.RetryKey(q), wire.CompletedKey(q), wire.GroupKey(q, "g1"), wire.GroupKey(q, "g2"),
	}).Draw(t, "zset")
	first := p.theirs.ZRange(t.Context(), key, 0, 0).Val()
	if len(first) == 0 {
		t.Skip("empty")
	}
	past := float64(p.start.Add(-100 * time.Duration(rapid.IntRange(1, 9).Draw(t, "ago")) * time.Second).Unix())
	p.theirs.ZAdd(t.Context(), key, redis.Z{Score: past, Member: first[0]})
	p.ours.ZAdd(t.Context(), key, redis.Z{Score: past, Member: first[0]})
}

func (p *pair) due(t *rapid.T) {
	p.stock.forward()
	if _, err := p.client.Due(t.Context(), q); err != nil {
		t.Fatal(err)
	}
}

func (p *pair) clean(t *rapid.T) {
	p.stock.deleteExpired()
	if _, err := p.client.Clean(t.Context(), q); err != nil {
		t.Fatal(err)
	}
}

func (p *pair) pause(t *rapid.T) {
	for _, rdb := range []redis.UniversalClient{p.ours, p.theirs} {
		if rdb.Del(t.Context(), wire.PausedKey(q)).Val() == 0 {
			rdb.Set(t.Context(), wire.PausedKey(q), "1", 0)
		}
	}
}

func (p *pair) aggregate(t *rapid.T) {
	g := queue.Grouping{
		Grace:    rapid.SampledFrom([]time.Duration{50 * time.Second, 2000 * time.Second}).Draw(t, "grace"),
		MaxDelay: rapid.SampledFrom([]time.Duration{0, 50 * time.Second, 2000 * time.Second}).Draw(t, "delay"),
		MaxSize:  rapid.IntRange(0, 3).Draw(t, "size"),
	}
	p.stock.reclaim()
	sets, err := p.client.Aggregate(t.Context(), q, g)
	if err != nil {
		t.Fatal(err)
	}
	mine := make(map[string]queue.Set)
	for _, s := range sets {
		mine[s.Group] = s
	}
	for _, group := range []string{"g1", "g2"} {
		s, made := mine[group]
		id := s.ID
		if !made {
			id = "none"
		}
		// The same name in both worlds, so that the keys can be compared.
		if want := p.stock.aggregate(group, id, g.Grace, g.MaxDelay, g.MaxSize); want != made {
			t.Fatalf("group %s: asynq makes a set: %v, we: %v", group, want, made)
		}
		if made {
			p.sets[s.ID] = group
		}
	}
}

func (p *pair) finishSet(t *rapid.T) {
	if len(p.sets) == 0 {
		t.Skip("no set")
	}
	id := rapid.SampledFrom(sortedKeys(p.sets)).Draw(t, "set")
	s := queue.Set{Queue: q, Group: p.sets[id], ID: id}
	delete(p.sets, id)
	if err := p.client.ReadSet(t.Context(), &s); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range s.Messages {
		got = append(got, m.ID)
		if m.UniqueKey != "" && p.theirs.Get(t.Context(), m.UniqueKey).Val() == m.ID {
			p.theirs.Del(t.Context(), m.UniqueKey) // 3
		}
	}
	if diff := cmp.Diff(p.stock.readSet(s.Group, id), got); diff != "" {
		t.Fatal(diff)
	}
	p.stock.deleteSet(s.Group, id)
	if _, err := p.client.DropSet(t.Context(), &s); err != nil {
		t.Fatal(err)
	}
}

// same compares the two worlds.
func (p *pair) same() {
	want, got := p.world(p.theirs), p.world(p.ours)
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		p.Fatalf("-asynq +bellhop:\n%s", diff)
	}
}

// world is all that stands in asynq's keys, with times rounded: both worlds began in one second, and each time that is drawn
// lies a multiple of 100 s from it.
func (p *pair) world(rdb redis.UniversalClient) map[string]any {
	ctx := p.Context()
	world := make(map[string]any)
	for _, key := range rdb.Keys(ctx, "asynq:*").Val() {
		name := p.undated(key)
		if ttl := rdb.TTL(ctx, key).Val(); ttl > 0 {
			world[name+" ttl"] = math.Round(ttl.Seconds() / 100)
		}
		switch rdb.Type(ctx, key).Val() {
		case "string":
			world[name] = rdb.Get(ctx, key).Val()
		case "list":
			world[name] = rdb.LRange(ctx, key, 0, -1).Val()
		case "set":
			world[name] = rdb.SMembersMap(ctx, key).Val()
		case "zset":
			scores := make(map[string]float64)
			for _, z := range rdb.ZRangeWithScores(ctx, key, 0, -1).Val() {
				scores[z.Member.(string)] = p.since(z.Score)
			}
			world[name] = scores
		case "hash":
			world[name] = p.job(rdb.HGetAll(ctx, key).Val())
		}
	}
	if name := wire.PausedKey(q); world[name] != nil {
		world[name] = "paused"
	}
	return world
}

func (p *pair) since(second float64) float64 {
	return math.Round((second-float64(p.start.Unix()))/20) * 20
}

func (p *pair) undated(key string) string {
	for _, t := range []time.Time{p.start, p.start.Add(time.Minute)} {
		key = strings.ReplaceAll(key, t.UTC().Format(time.DateOnly), "today")
	}
	return key
}

func (p *pair) job(h map[string]string) map[string]any {
	out := make(map[string]any)
	for field, v := range h {
		switch field {
		case "msg":
			m, err := wire.Decode([]byte(v))
			if err != nil {
				p.Fatal(err)
			}
			for _, at := range []*int64{&m.CompletedAt, &m.LastFailedAt} {
				if *at != 0 {
					*at = 1_000_000 + int64(p.since(float64(*at)))
				}
			}
			out[field] = m
		case "pending_since":
			if h["state"] == "active" {
				continue // 2
			}
			ns, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				p.Fatal(err)
			}
			out[field] = p.since(float64(ns) / 1e9)
		case "unique_key":
			if h["group"] != "" {
				continue // 4
			}
			out[field] = v
		default:
			out[field] = v
		}
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
