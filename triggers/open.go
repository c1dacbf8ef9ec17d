package triggers

import (
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/bellhop-dev/bellhop/events"
	"github.com/bellhop-dev/bellhop/job"
)

// Open returns a feed of the rules over rdb, with every setting at its default: what most mains need, to be given to
// worker.Feed. tasks is what the rules may run; the error tells every fault of the rules, see [Compile].
// Who wants other settings calls Compile and [NewFeed] themselves, as Open does.
func Open(rdb redis.UniversalClient, tasks Tasks, rules ...Trigger) (*Feed, error) {
	set, err := Compile(rules, tasks, Config{})
	if err != nil {
		return nil, err
	}
	stream, err := events.NewClient(rdb, events.Config{})
	if err != nil {
		return nil, fmt.Errorf("open triggers: %w", err)
	}
	return NewFeed(set, stream, job.NewClient(rdb), nil)
}
