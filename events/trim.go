package events

import (
	"context"
	_ "embed"
	"fmt"

	"github.com/redis/go-redis/v9"
)

//go:embed trim.lua
var trimSource string

var trimScript = redis.NewScript(trimSource)

// trimChunk is how many entries one call may remove: some milliseconds of Redis' one thread.
const trimChunk = 5000

// Trimmed is what [Client.Trim] did.
type Trimmed struct {
	// Removed is the number of events removed by this call.
	Removed int64
	// FirstID is the stream id before which no event is left, whoever removed them: what is kept for each event
	// elsewhere may go up to here. "0-0" if there never was an event.
	FirstID string
	// Length is the number of events left.
	Length int64
}

// Trim removes the events that every durable group has acknowledged and that are past Config.Retention. When the stream
// has come near Config.MaxEvents (nine tenths), it makes room by removing the oldest acknowledged ones even before.
// An event that a durable group still awaits is never removed, and none at all while no group exists.
//
// Consumers trim by themselves, see [Consumer.Run]; [Client.Publish] does when the stream is full.
// On the embedded Redis, making room may remove more of the acknowledged ones than it has to.
func (c *Client) Trim(ctx context.Context) (Trimmed, error) {
	target := c.cfg.MaxEvents - max(1, c.cfg.MaxEvents/10)
	var total Trimmed
	for {
		t, err := c.trimSome(ctx, target)
		if err != nil {
			return total, err
		}
		total = Trimmed{Removed: total.Removed + t.Removed, FirstID: t.FirstID, Length: t.Length}
		if t.Removed == 0 {
			return total, nil
		}
	}
}

func (c *Client) trimSome(ctx context.Context, target int64) (Trimmed, error) {
	answer, err := trimScript.Run(ctx, c.rdb, []string{c.keys.stream},
		c.cfg.Retention.Milliseconds(), target, trimChunk).Slice()
	if err != nil {
		return Trimmed{}, fmt.Errorf("trim events: %w", err)
	}
	if len(answer) != 3 {
		return Trimmed{}, fmt.Errorf("trim events: Redis answered %v", answer)
	}
	removed, _ := answer[0].(int64)
	first, _ := answer[1].(string)
	length, _ := answer[2].(int64)
	return Trimmed{Removed: removed, FirstID: first, Length: length}, nil
}
