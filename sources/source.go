// Package sources says what a source of events is. The sources themselves stand below it, a package each.
//
// Step 1 of 7: something happens elsewhere, a message arrives in a broker's queue, and a source makes an event of it. What
// every source promises, and what package sourcetest shows of each:
//
//   - A message is acknowledged to where it came from only once its event is durable: after [events.Publisher] answered for it
//     without an error. Until then it stays with its broker, which hands it out again after a crash of this process, of the
//     broker, or of the wire between them.
//   - A message handed out again becomes an event with the same source and id. It is stored once.
//   - While events are not taken, Redis being away or the stream full, messages wait: they are not acknowledged, not sent back
//     and not fetched in ever greater numbers.
//   - What can't become an event is set aside where people find it, with the reason, and then acknowledged. It is never dropped,
//     and never holds up the messages behind it.
//   - An outage is logged once when it begins and once when it ends, however long it takes.
package sources

import (
	"context"

	"github.com/bellhop-dev/bellhop/events"
)

// Source is where events come from.
type Source interface {
	// Run publishes events until ctx ends. It then returns nil within seconds, and what it did not acknowledge is back with its
	// broker. Outages of either side are waited out: an error says that this source can't work as it is configured.
	Run(ctx context.Context, to events.Publisher) error
}
