package events

import (
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// Client publishes, reads and hands out the events of one Redis. It is safe for concurrent use.
type Client struct {
	rdb  redis.UniversalClient
	cfg  Config
	keys keys

	outbox outbox
	hub    hub
}

// NewClient returns a client that uses rdb, which the caller keeps and closes. It doesn't talk to Redis yet.
func NewClient(rdb redis.UniversalClient, cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configure events: %w", err)
	}
	cfg = cfg.WithDefaults()
	if _, cluster := rdb.(*redis.ClusterClient); cluster && cfg.Replicas > 0 {
		return nil, errors.New("configure events: the durable mode does not work in a Redis Cluster: use Sentinel, or leave it off")
	}
	c := &Client{rdb: rdb, cfg: cfg, keys: keysOf(cfg.Prefix)}
	c.outbox.send, c.hub.client = c.send, c
	return c, nil
}

// Config returns the settings in use, defaults filled in.
func (c *Client) Config() Config { return c.cfg }

// keys are the Redis keys of this package.
type keys struct {
	stream      string // stream: the events, field "event" is the JSON form
	seen        string // + hash of source and id: string "<stream id> <token of the publish>", expires
	bell        string // + group and consumer: stream that wakes this one consumer, expires
	junk        string // stream: entries of the event stream that don't decode
	junkTotal   string // string: how many there ever were
	dead        string // hash: id -> dead match as JSON
	replay      string // + id of a replay: string, its request and progress as JSON, expires
	deadInOrder string // zset, all scores 0: ids of the dead matches, padded to sort by stream id
}

func keysOf(prefix string) keys {
	return keys{
		stream:      prefix + "stream",
		seen:        prefix + "seen:",
		bell:        prefix + "bell:",
		junk:        prefix + "undecodable",
		junkTotal:   prefix + "undecodable:total",
		dead:        prefix + "dead",
		replay:      prefix + "replay:",
		deadInOrder: prefix + "dead:order",
	}
}

// fieldEvent is the field of a stream entry that holds the event.
const fieldEvent = "event"
