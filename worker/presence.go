package worker

import (
	"context"
	"os"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/wire"
)

const (
	// appearEvery is how often stock tools' list of servers and running jobs is written, asynq's interval. An entry lives for
	// two of them.
	appearEvery = 5 * time.Second

	// maxShownPayload bounds what the list repeats of a running job's payload: it is rewritten at each beat.
	maxShownPayload = 1 << 10
)

// appear keeps the worker and its running jobs in the list that asynq.Inspector and asynqmon show.
func (p *pool) appear(ctx context.Context) {
	ticker := time.NewTicker(appearEvery)
	defer ticker.Stop()
	info := p.serverInfo()
	defer p.vanish(info)
	listed := false
	for {
		var err error
		if listed, err = p.show(ctx, info, listed); err == nil {
			p.redis.answered("list the worker")
		} else if ctx.Err() == nil {
			p.redis.failed("list the worker", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (p *pool) serverInfo() wire.ServerInfo {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return wire.ServerInfo{
		Host: host, PID: os.Getpid(), ServerID: p.w.id, Concurrency: p.w.cfg.Concurrency, Queues: p.w.cfg.weights(),
		StrictPriority: p.w.cfg.StrictPriority, Started: p.w.started,
	}
}

// show writes the list, and tells whether it lists running jobs; listed is what it told before. The keys stand in different slots
// of a Cluster: it is no transaction.
func (p *pool) show(ctx context.Context, info wire.ServerInfo, listed bool) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, beatLimit)
	defer cancel()
	info.Status = wire.StatusActive
	if p.w.draining.Load() {
		info.Status = wire.StatusStopped
	}
	jobs := p.workerInfos(info)
	info.ActiveWorkers = len(jobs) / 2
	server, err := info.Encode()
	if err != nil {
		return false, err
	}
	const ttl = 2 * appearEvery
	expires := float64(time.Now().Add(ttl).Unix())
	serverKey, workersKey := info.Keys()
	_, err = p.w.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.ZAdd(ctx, wire.AllServers, redis.Z{Score: expires, Member: serverKey})
		pipe.Set(ctx, serverKey, server, ttl)
		if listed {
			pipe.Del(ctx, workersKey)
		}
		if len(jobs) > 0 {
			pipe.ZAdd(ctx, wire.AllWorkers, redis.Z{Score: expires, Member: workersKey})
			pipe.HSet(ctx, workersKey, jobs...)
			pipe.Expire(ctx, workersKey, ttl)
		}
		return nil
	})
	return len(jobs) > 0 || err != nil && listed, err
}

// workerInfos are the running jobs: id and record of each in turn.
func (p *pool) workerInfos(info wire.ServerInfo) []any {
	p.mu.Lock()
	running := make([]*attempt, 0, p.running.n)
	for a := range p.running.all() {
		running = append(running, a)
	}
	p.mu.Unlock()
	out := make([]any, 0, 2*len(running))
	for _, a := range running {
		payload := a.job.Payload
		record, err := (&wire.WorkerInfo{
			Host: info.Host, PID: info.PID, ServerID: info.ServerID, ID: a.job.ID, Type: a.job.Task,
			Payload: payload[:min(len(payload), maxShownPayload)], Queue: a.job.Queue, Started: a.started, Deadline: a.deadline(),
		}).Encode()
		if err == nil {
			out = append(out, a.job.ID, record)
		}
	}
	return out
}

// vanish takes the worker out of the list.
func (p *pool) vanish(info wire.ServerInfo) {
	ctx, cancel := context.WithTimeout(p.base, leaveWithin)
	defer cancel()
	serverKey, workersKey := info.Keys()
	_, _ = p.w.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error { // it expires by itself otherwise
		pipe.ZRem(ctx, wire.AllServers, serverKey)
		pipe.ZRem(ctx, wire.AllWorkers, workersKey)
		pipe.Del(ctx, serverKey)
		pipe.Del(ctx, workersKey)
		return nil
	})
}
