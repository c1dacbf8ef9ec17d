// Package rabbitmq takes events from RabbitMQ, by AMQP 0-9-1.
//
// Step 1 of 7: a message in a queue becomes an event, as package sources promises. A CloudEvent is taken as it is, in AMQP's binary
// mode (attributes in headers that begin with cloudEvents: or cloudEvents_) and in structured mode (content type
// application/cloudevents+json). Any other message becomes an event by [Config.Mapping].
//
// Messages are acknowledged after their events are durable, those that arrive together in one publish and one acknowledgement.
// While events are not taken, messages are held, not sent back: a message that is requeued counts towards the delivery limit of a
// quorum queue, and at the limit the broker gives it up. What the source declares therefore has a high limit, and a dead-letter
// queue behind it that the broker itself fills at least once. It needs RabbitMQ 3.10 or newer.
//
// What can't become an event is published to the dead-letter queue, confirmed, and only then acknowledged. The body is as it was; header
// x-bellhop-reason says why it is there.
package rabbitmq
