// Package queue moves jobs through Redis in asynq's layout: one Lua script a transition, many jobs a call.
//
// Step 4 of 7: what job enqueues and what worker takes passes through here. Each script answers for every job that it was
// given, so that one bad job never decides for its neighbours.
package queue

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/wire"
)

// Client moves jobs. It is safe for concurrent use and holds no connection of its own: closing rdb is the caller's part.
type Client struct {
	rdb redis.UniversalClient

	// listed remembers when a queue was last written to asynq's set of queues, so that a flushed Redis learns it again.
	listed sync.Map // queue name -> time.Time

	// session makes this client's requests differ from those of every other one.
	session string

	outboxes sync.Map // line -> *outbox
	sending  sending

	// plain is set once the server turned out not to know the first line of our scripts.
	plain atomic.Bool

	durable durability
}

// New returns a client over rdb.
func New(rdb redis.UniversalClient, opts ...Option) *Client {
	c := &Client{rdb: rdb, session: newSession()}
	for _, opt := range opts {
		opt(c)
	}
	return c
}

func newSession() string {
	nonce := make([]byte, 8)
	_, _ = rand.Read(nonce) // never fails
	return hex.EncodeToString(nonce)
}

// relist is how often a queue in use is written to asynq's set of queues again.
const relist = time.Minute

// list makes the queue known to stock tools, which list queues from a set.
func (c *Client) list(ctx context.Context, queue string) error {
	if last, ok := c.listed.Load(queue); ok && time.Since(last.(time.Time)) < relist {
		return nil
	}
	if err := c.rdb.SAdd(ctx, wire.AllQueues, queue).Err(); err != nil {
		return err
	}
	c.listed.Store(queue, time.Now())
	return nil
}
