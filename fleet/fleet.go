// Package fleet is the read model and the switches of a running system: which workers live, what they serve, what tasks are
// known, where a job stands. Gateways, dashboards, `enqueue` and `worker --check` look through it.
package fleet

import (
	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/queue"
)

// Keys. They share a tag, so that one script may touch them in a Cluster.
const (
	workersKey   = "bellhop:{fleet}:workers" // zset of worker ids, scored by their last beat (Redis ms)
	workerPrefix = "bellhop:{fleet}:worker:" // a worker's record, JSON
	tasksKey     = "bellhop:{fleet}:tasks"   // hash of task name -> what is known of it, JSON
)

// Client reads and writes the fleet's records. It is safe for concurrent use.
type Client struct {
	rdb   redis.UniversalClient
	queue *queue.Client
	vigil *vigil

	records records
}

// New returns a client over rdb, which stays the caller's to close.
func New(rdb redis.UniversalClient) *Client {
	q := queue.New(rdb)
	return &Client{rdb: rdb, queue: q, vigil: newVigil(rdb, q)}
}
