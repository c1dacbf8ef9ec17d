package wire

import (
	"crypto/md5" //nolint:gosec // asynq's unique keys are MD5 sums; no secret hangs on them
	"encoding/hex"
	"time"
)

// Global keys of asynq.
const (
	AllServers    = "asynq:servers" // zset of server keys, scored by expiry
	AllWorkers    = "asynq:workers" // zset of worker keys, scored by expiry
	AllQueues     = "asynq:queues"  // set of queue names
	CancelChannel = "asynq:cancel"  // pub/sub channel that carries job ids
)

// StatsTTL is how long a day's counters are kept.
const StatsTTL = 90 * 24 * time.Hour

// QueuePrefix begins every key of asynq for a queue. The braces put them into one Cluster slot.
func QueuePrefix(queue string) string { return "asynq:{" + queue + "}:" }

// OwnPrefix begins every key that bellhop adds for a queue, in the same slot as asynq's.
func OwnPrefix(queue string) string { return "bellhop:{" + queue + "}:" }

// JobPrefix begins the key of every job's hash.
func JobPrefix(queue string) string { return QueuePrefix(queue) + "t:" }

// JobKey is the hash of one job: msg, state, pending_since, unique_key, group, result.
func JobKey(queue, id string) string { return JobPrefix(queue) + id }

// PendingKey is the list of jobs that may run now: pushed left, taken right.
func PendingKey(queue string) string { return QueuePrefix(queue) + "pending" }

// ActiveKey is the list of jobs that run.
func ActiveKey(queue string) string { return QueuePrefix(queue) + "active" }

// LeaseKey is the zset of running jobs, scored by the second at which stock servers take them away.
func LeaseKey(queue string) string { return QueuePrefix(queue) + "lease" }

// ScheduledKey is the zset of jobs that wait for their time, in Unix seconds.
func ScheduledKey(queue string) string { return QueuePrefix(queue) + "scheduled" }

// RetryKey is the zset of jobs that wait for their next attempt, in Unix seconds.
func RetryKey(queue string) string { return QueuePrefix(queue) + "retry" }

// ArchivedKey is the zset of dead jobs, scored by when they died.
func ArchivedKey(queue string) string { return QueuePrefix(queue) + "archived" }

// CompletedKey is the zset of kept jobs, scored by when they may be removed.
func CompletedKey(queue string) string { return QueuePrefix(queue) + "completed" }

// PausedKey exists while the queue is paused.
func PausedKey(queue string) string { return QueuePrefix(queue) + "paused" }

// ProcessedTotalKey counts every finished attempt of the queue.
func ProcessedTotalKey(queue string) string { return QueuePrefix(queue) + "processed" }

// FailedTotalKey counts every failed attempt of the queue.
func FailedTotalKey(queue string) string { return QueuePrefix(queue) + "failed" }

// ProcessedKey counts the finished attempts of t's day (UTC).
func ProcessedKey(queue string, t time.Time) string {
	return QueuePrefix(queue) + "processed:" + t.UTC().Format(time.DateOnly)
}

// FailedKey counts the failed attempts of t's day (UTC).
func FailedKey(queue string, t time.Time) string {
	return QueuePrefix(queue) + "failed:" + t.UTC().Format(time.DateOnly)
}

// UniqueKey is the lock on (queue, task, payload).
func UniqueKey(queue, task string, payload []byte) string {
	prefix := QueuePrefix(queue) + "unique:" + task + ":"
	if payload == nil {
		return prefix
	}
	sum := md5.Sum(payload) //nolint:gosec // see the import
	return prefix + hex.EncodeToString(sum[:])
}

// GroupKey is the zset of a group's waiting jobs, scored by when they came.
func GroupKey(queue, group string) string { return QueuePrefix(queue) + "g:" + group }

// AllGroups is the set of a queue's groups.
func AllGroups(queue string) string { return QueuePrefix(queue) + "groups" }

// AllAggregationSets is the zset of a queue's sets under aggregation, scored by when they are given up.
func AllAggregationSets(queue string) string { return QueuePrefix(queue) + "aggregation_sets" }

// FiredKey is the zset of (event, trigger) pairs whose job was stored in this queue, scored by the event's milliseconds.
// A pair lives as long as its event, so that a redelivered event does not run a finished job again.
func FiredKey(queue string) string { return OwnPrefix(queue) + "fired" }
