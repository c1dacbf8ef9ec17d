package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// Option changes what New returns.
type Option func(*Client)

// Durable makes Enqueue answer only once so many replicas have the jobs too, so that a failover to one of them loses none. It
// waits for them at most so long (default 1s; keep it below the client's read timeout), once for all the jobs of a round trip. Redis asks
// its replicas with each WAIT, which costs a round trip to the slowest of them. It does not work in a Cluster.
//
// It holds for what this client enqueues, the jobs of triggers that were given it included. Ends of attempts are
// acknowledged by the master alone: after a failover that lost them, a job runs again. Events have a setting of their own.
//
// A duplicate is answered as such. Where the replicas lag behind, its error is an ErrNotReplicated too: the job that stands in its place
// may be the one that an earlier try stored, and a failover may lose it.
func Durable(replicas int, within time.Duration) Option {
	if within <= 0 {
		within = time.Second
	}
	return func(c *Client) { c.durable = durability{replicas: replicas, within: within} }
}

// ErrNotReplicated tells that the job is stored, but not on as many replicas as Durable asks for: a failover may lose it. Asking again
// with the same id tells whether it did.
var ErrNotReplicated = errors.New("stored, but not confirmed by enough replicas")

type durability struct {
	replicas int
	within   time.Duration
}

// check refuses what Durable can't do.
func (d durability) check(rdb redis.UniversalClient) error {
	if d.replicas < 0 {
		return fmt.Errorf("the durable mode asks for %d replicas: name at least one, or 0 to leave it off", d.replicas)
	}
	if _, cluster := rdb.(*redis.ClusterClient); cluster && d.replicas > 0 {
		return errors.New("the durable mode does not work in a Redis Cluster: use Sentinel, or leave it off")
	}
	return nil
}

// wait adds WAIT to a pipeline that stores jobs. It counts for what this connection has written, so it goes with it.
func (d durability) wait(ctx context.Context, p redis.Pipeliner, calls []*call) *redis.Cmd {
	if d.replicas <= 0 || len(calls) == 0 || !calls[0].stores() {
		return nil
	}
	return p.Do(ctx, "WAIT", d.replicas, d.within.Milliseconds())
}

// judge notes which answers too few replicas confirmed. What the script said still holds: a duplicate is one.
func (d durability) judge(calls []*call, confirmed *redis.Cmd) {
	for _, call := range calls {
		call.unconfirmed = nil
	}
	if confirmed == nil {
		return
	}
	n, err := confirmed.Int64()
	if err == nil && n >= int64(d.replicas) {
		return
	}
	for _, call := range calls {
		if call.reply.Err() == nil {
			call.unconfirmed = &replicationError{confirmed: n, wanted: d.replicas, cause: err}
		}
	}
}

// stores tells that the call stores jobs, the only ones that replicas are asked about.
func (c *call) stores() bool { return c.script == enqueueScript || c.script == pushScript }

// unheard tells that the jobs' answer came and the replicas' was lost: both are asked for again.
func (c *call) unheard() bool {
	return c.unconfirmed != nil && c.unconfirmed.cause != nil && unanswered(c.unconfirmed.cause)
}

// replicationError tells that a job is stored, but not on as many replicas as asked for.
type replicationError struct {
	confirmed int64
	wanted    int
	cause     error
}

func (e *replicationError) Error() string {
	if e.cause != nil {
		return fmt.Sprintf("%v: %v", ErrNotReplicated, e.cause)
	}
	return fmt.Sprintf("%v: %d of %d", ErrNotReplicated, e.confirmed, e.wanted)
}

func (e *replicationError) Is(target error) bool { return target == ErrNotReplicated }

func (e *replicationError) Unwrap() error { return e.cause }
