package events

import "context"

// Publisher is where events go: [Client], for whoever needs no more of it than that.
//
// The outcome at index i is of event i. The error is nil once all of them are durable in Redis, as stored now or before.
// What must not be lost is acknowledged to its sender only then; after any other outcome it is published again, with the
// same source and id, and stored once.
type Publisher interface {
	Publish(ctx context.Context, events ...*Event) ([]Published, error)
}

var _ Publisher = (*Client)(nil)
