// Package webhook takes in what providers post.
//
// Step 1 of 7: a delivery of GitHub, Slack, Stripe or anyone who signs becomes a CloudEvent. What the package promises:
//
//   - A delivery is an event only if its signature holds, over the body as it came, by one of the hook's secrets; where the
//     scheme signs a time, only while that is fresh.
//   - A 2xx is given once the event is durable in Redis. A provider that sends the same delivery again, since it saw no
//     answer, gets a 2xx too, and nothing is stored twice: the delivery's id is the event's.
//   - What is refused tells its sender as little as it needs; the operator's log tells why. Neither holds a secret, a
//     signature or a body.
//
// GitHub signs the body and nothing else: who has got hold of a whole delivery may send it again under another id. TLS keeps
// deliveries from such hands; where that is not enough, dedupe_by: body makes the body itself the event's id.
package webhook
