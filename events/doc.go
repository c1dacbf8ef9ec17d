// Package events is step 2 of 7 on an event's path.
//
// Step 2 of 7: what happened becomes a CloudEvents 1.0 record on a Redis stream, stored once per source and id, and
// is handed to every durable group until that group has acknowledged it.
//
// What the package promises:
//
//   - [Client.Publish] answers after Redis stored the event. Publishing the same source and id again, within
//     [Config.DedupeWindow], stores nothing and answers with the first one's stream id.
//   - A durable group sees every event at least once, also those published before its first worker came. An event that
//     was delivered stays pending until the [Handler] returned nil for it; a dead worker's events are claimed by a live one.
//   - The stream is never trimmed past what the slowest durable group has acknowledged. At [Config.MaxEvents]
//     publishing is refused with [ErrFull]; nothing is dropped.
//
// The durable groups are the consumer groups of the stream, there is no second list of them.
package events
