// Package keys is who may use the gateway: API keys with scopes, a rate and an end. Step 1 of 7: what comes in over HTTP
// shows a key first.
//
// A key is random, is shown once, and only its SHA-256 is stored. Each process holds the table of all keys in memory and asks
// Redis every few seconds whether it has changed. So a guessed token costs a hash, never a call to Redis, memory is bounded by
// the keys there are, and a revoked key is refused by the whole fleet within Config.Trust.
package keys
