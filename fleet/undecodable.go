package fleet

import (
	"context"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/wire"
	"github.com/bellhop-dev/bellhop/queue"
)

// LongestShown is how much of an undecodable message is shown, in bytes.
const LongestShown = 16 << 10

// mostUndecodable is the longest page of Client.Undecodable.
const mostUndecodable = 1000

// Undecodable is a job whose message can't be decoded. It was set aside: it does not run, and is kept until it is removed.
type Undecodable struct {
	ID string
	At time.Time // it was set aside, in whole seconds

	// Message is what Redis holds, its first LongestShown bytes; Size is how long all of it is, -1 if it is gone.
	Message []byte
	Size    int
}

// ErrCursor tells that a cursor is none that a page has given.
var ErrCursor = errors.New("the cursor is none that was given: leave it out to begin")

//go:embed beginnings.lua
var beginningsSource string

var beginningsScript = redis.NewScript(beginningsSource)

// Undecodable lists a queue's jobs that were set aside, the oldest first, after a cursor that is empty at the beginning; limit of them at
// most, 1 to 1,000. next is the cursor of the page that follows, empty after the last one. It fails with ErrCursor.
func (c *Client) Undecodable(ctx context.Context, queueName, cursor string, limit int) (page []Undecodable, next string, err error) {
	limit = min(max(limit, 1), mostUndecodable)
	after, err := parsePlace(cursor)
	if err != nil {
		return nil, "", err
	}
	places, more, err := c.asideAfter(ctx, queueName, after, limit)
	if err != nil {
		return nil, "", fmt.Errorf("list the undecodable jobs of queue %s: %w", queueName, err)
	}
	if len(places) == 0 {
		return nil, "", nil
	}
	keys := make([]string, len(places))
	for i, p := range places {
		keys[i] = wire.JobKey(queueName, p.id)
	}
	reply, err := beginningsScript.Run(ctx, c.rdb, keys, LongestShown).Slice()
	if err == nil && len(reply) != 2*len(places) {
		err = fmt.Errorf("unexpected answer of %d values for %d jobs", len(reply), len(places))
	}
	if err != nil {
		return nil, "", fmt.Errorf("read the undecodable jobs of queue %s: %w", queueName, err)
	}
	for i, p := range places {
		size, _ := reply[2*i].(int64)
		message, _ := reply[2*i+1].(string)
		page = append(page, Undecodable{ID: p.id, At: time.Unix(p.second, 0), Message: []byte(message), Size: int(size)})
	}
	if more {
		next = places[len(places)-1].String()
	}
	return page, next, nil
}

// asideAfter reads the places that follow one, and tells whether there are more. The one may be gone meanwhile: what follows is found by the
// order, which is that of the seconds, and in one second that of the ids. atOnce grows, as one bad deployment can set thousands aside in a second.
func (c *Client) asideAfter(ctx context.Context, queueName string, after *place, limit int) (places []place, more bool, err error) {
	key, from, atOnce := wire.UndecodableKey(queueName), int64(0), max(limit+2, 100)
	if after != nil {
		from, err = c.rdb.ZCount(ctx, key, "-inf", "("+strconv.FormatInt(after.second, 10)).Result()
		if err != nil {
			return nil, false, err
		}
	}
	for {
		some, err := c.rdb.ZRangeWithScores(ctx, key, from, from+int64(atOnce)-1).Result()
		if err != nil {
			return nil, false, err
		}
		for _, z := range some {
			id, _ := z.Member.(string)
			p := place{int64(z.Score), id}
			switch {
			case after != nil && !after.before(p):
			case len(places) == limit:
				return places, true, nil
			default:
				places = append(places, p)
			}
		}
		if len(some) < atOnce {
			return places, false, nil
		}
		from += int64(len(some))
		atOnce = min(2*atOnce, mostRead)
	}
}

// mostRead places are read in one round trip.
const mostRead = 10_000

// place is that of a job among those that were set aside.
type place struct {
	second int64
	id     string
}

func (p place) before(other place) bool {
	return p.second < other.second || p.second == other.second && p.id < other.id
}

func (p place) String() string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(p.second, 10) + ":" + p.id))
}

func parsePlace(cursor string) (*place, error) {
	if cursor == "" {
		return nil, nil //nolint:nilnil // the beginning is no place
	}
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	second, id, found := strings.Cut(string(text), ":")
	n, notNumber := strconv.ParseInt(second, 10, 64)
	if err != nil || !found || notNumber != nil {
		return nil, ErrCursor
	}
	return &place{n, id}, nil
}

// RemoveUndecodable deletes a job that was set aside, with its lock; those who await it learn that it is gone. It fails with ErrNoJob if
// no job of that id is set aside, and never touches one that is not.
func (c *Client) RemoveUndecodable(ctx context.Context, queueName, id string) error {
	err := c.queue.RemoveAside(ctx, queue.Ref{Queue: queueName, ID: id})
	if !errors.Is(err, queue.ErrNoJob) {
		return err
	}
	// Its hash may have been deleted by hand: then its place is all that is left.
	left, err := c.rdb.ZRem(ctx, wire.UndecodableKey(queueName), id).Result()
	switch {
	case err != nil:
		return fmt.Errorf("remove undecodable job %s from queue %s: %w", id, queueName, err)
	case left == 0:
		return noJob(queueName, id)
	}
	return nil
}
