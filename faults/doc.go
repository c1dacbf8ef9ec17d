// Package faults is the catalogue of what goes wrong around a worker, as a test suite on real processes: a worker is a child
// that is killed, frozen or cut off, Redis is a redis-server that is restarted, filled or failed over.
//
// `make faults` runs it. Each test prints one line: what stock asynq did in the same place (stock.json, recorded by
// `make faults-stock`), what bellhop did, and the goal.
package faults
