// Package endpoints keeps what the whole fleet knows of the addresses that webhooks are delivered to: which of them answer, which
// are given a rest, which were switched off and why, and how the last attempts went.
//
// Beside step 6 of 7: the handler of webhook:deliver asks it for leave before each call and tells it how the call ended. It holds
// the circuit breaker, so that a worker never waits for an endpoint that others have found dead.
package endpoints
