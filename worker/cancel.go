package worker

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/internal/wire"
)

// listenCheck is how often a silent subscription is proven to be alive.
const listenCheck = 10 * time.Second

// listen cancels the jobs whose ids stock tools publish. A message that comes while Redis is out of reach is lost, as with
// stock servers: the one who cancels sees that the job still runs.
func (p *pool) listen(ctx context.Context) {
	sub := p.w.rdb.Subscribe(ctx, wire.CancelChannel)
	defer func() { _ = sub.Close() }()
	messages := sub.Channel(redis.WithChannelHealthCheckInterval(listenCheck))
	for {
		select {
		case <-ctx.Done():
			return
		case message, open := <-messages:
			if !open {
				return
			}
			p.cancel(message.Payload)
		}
	}
}

func (p *pool) cancel(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for a := range p.running.all() {
		if a.job.ID == id {
			a.ctx.stop(ErrCancelled)
		}
	}
}
