package fleet

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Worker is one process of the fleet.
type Worker struct {
	ID          string         `json:"id"`
	Host        string         `json:"host"`
	PID         int            `json:"pid"`
	Build       string         `json:"build"`
	Engine      string         `json:"engine"`
	Concurrency int            `json:"concurrency"`
	Queues      map[string]int `json:"queues"` // name -> weight
	Tasks       []string       `json:"tasks"`
	Started     time.Time      `json:"started"`
	Draining    bool           `json:"draining,omitempty"`

	// Beat is when the worker was last heard of, by Redis' clock. It is not stored in the record.
	Beat time.Time `json:"-"`
}

// Beats. A worker beats well within the time after which it no longer counts as alive.
const (
	BeatEvery   = 2 * time.Second
	AliveFor    = 5 * time.Second
	forgetAfter = time.Minute
)

//go:embed beat.lua
var beatSource string

// The first line of the script asks Redis to run it at maxmemory too, or a fleet that works would seem dead. The embedded one doesn't know
// that line.
var (
	beatScript      = redis.NewScript(beatSource)
	plainBeatScript = redis.NewScript(beatSource[strings.IndexByte(beatSource, '\n')+1:])
)

// Beat writes the worker's record and marks it alive. It tells whether it was known before; if not (it has just started, or Redis was
// flushed), its tasks must be written with Register.
func (c *Client) Beat(ctx context.Context, w Worker) (known bool, err error) {
	record, err := json.Marshal(w)
	if err != nil {
		return false, fmt.Errorf("beat of worker %s: %w", w.ID, err)
	}
	sent := record
	if c.records.stands(w.ID, record) {
		sent = nil
	}
	known, err = c.beat(ctx, w.ID, sent)
	if err == nil && !known && sent == nil {
		sent = record // Redis was flushed
		_, err = c.beat(ctx, w.ID, sent)
	}
	if err != nil {
		c.records.forget(w.ID)
		return false, fmt.Errorf("beat of worker %s: %w", w.ID, err)
	}
	if sent != nil {
		c.records.wrote(w.ID, record)
	}
	return known, nil
}

func (c *Client) beat(ctx context.Context, id string, record []byte) (known bool, err error) {
	keys := []string{workersKey, workerPrefix + id}
	args := []any{id, record, forgetAfter.Milliseconds()}
	n, err := beatScript.Run(ctx, c.rdb, keys, args...).Int()
	if err != nil && strings.Contains(strings.ToLower(err.Error()), "compil") {
		n, err = plainBeatScript.Run(ctx, c.rdb, keys, args...).Int()
	}
	return n == 1, err
}

// rewriteEvery is how often a record is written again that has not changed: it expires.
const rewriteEvery = forgetAfter / 4

// records knows what was last written of this process' workers.
type records struct {
	mu   sync.Mutex
	last map[string]written // by worker
}

type written struct {
	record []byte
	at     time.Time
}

// stands tells that the record is in Redis as it is.
func (r *records) stands(id string, record []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, ok := r.last[id]
	return ok && bytes.Equal(last.record, record) && time.Since(last.at) < rewriteEvery
}

func (r *records) wrote(id string, record []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		r.last = make(map[string]written, 1)
	}
	r.last[id] = written{record, time.Now()}
}

func (r *records) forget(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.last, id)
}

// Leave takes the worker off the list.
func (c *Client) Leave(ctx context.Context, id string) error {
	c.records.forget(id)
	_, err := c.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.ZRem(ctx, workersKey, id)
		p.Del(ctx, workerPrefix+id)
		return nil
	})
	if err != nil {
		return fmt.Errorf("take worker %s off the list: %w", id, err)
	}
	return nil
}

// Workers are the ones alive, oldest first.
func (c *Client) Workers(ctx context.Context) ([]Worker, error) {
	now, err := c.rdb.Time(ctx).Result()
	if err != nil {
		return nil, fmt.Errorf("list workers: %w", err)
	}
	since := fmt.Sprint(now.Add(-AliveFor).UnixMilli())
	beats, err := c.rdb.ZRangeByScoreWithScores(ctx, workersKey, &redis.ZRangeBy{Min: since, Max: "+inf"}).Result()
	if err != nil {
		return nil, fmt.Errorf("list workers: %w", err)
	}
	workers := make([]Worker, 0, len(beats))
	for _, beat := range beats {
		record, err := c.rdb.Get(ctx, workerPrefix+fmt.Sprint(beat.Member)).Bytes()
		if errors.Is(err, redis.Nil) {
			continue // it left between the two reads
		}
		if err != nil {
			return nil, fmt.Errorf("list workers: %w", err)
		}
		var w Worker
		if err := json.Unmarshal(record, &w); err != nil {
			return nil, fmt.Errorf("read the record of worker %v: %w", beat.Member, err)
		}
		w.Beat = time.UnixMilli(int64(beat.Score))
		workers = append(workers, w)
	}
	slices.SortFunc(workers, func(a, b Worker) int { return a.Started.Compare(b.Started) })
	return workers, nil
}

// ErrNotServed tells that no live worker takes jobs from some queue.
var ErrNotServed = errors.New("no live worker serves")

// CheckServed fails with ErrNotServed unless each of the queues has a live worker that is not on its way out.
func (c *Client) CheckServed(ctx context.Context, queues []string) error {
	workers, err := c.Workers(ctx)
	if err != nil {
		return err
	}
	var unserved []string
	for _, queue := range queues {
		serves := func(w Worker) bool { return w.Queues[queue] > 0 && !w.Draining }
		if !slices.ContainsFunc(workers, serves) {
			unserved = append(unserved, queue)
		}
	}
	if len(unserved) > 0 {
		return fmt.Errorf("%w: %s (of %d live workers)", ErrNotServed, strings.Join(unserved, ", "), len(workers))
	}
	return nil
}
