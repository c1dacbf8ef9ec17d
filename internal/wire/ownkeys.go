package wire

// MarksKey is the hash of the workers that run jobs: worker -> "<number> <last fetch or claim>". The number stands in the leases of its jobs, see
// Mark; a last fetch that is sent again gets the first answer. The field "" holds the last number given.
func MarksKey(queue string) string { return OwnPrefix(queue) + "marks" }

// CallsKey is the hash of each worker's last finish, so that a resent request gets the first answer.
func CallsKey(queue string) string { return OwnPrefix(queue) + "calls" }

// BeatsKey is the zset of the workers that serve the queue, scored by their last beat in Unix milliseconds of Redis' clock.
func BeatsKey(queue string) string { return OwnPrefix(queue) + "beats" }

// KeeperKey names the worker that keeps the queue for the fleet: moves due jobs, removes what has expired.
func KeeperKey(queue string) string { return OwnPrefix(queue) + "keeper" }

// DueKey is the zset of scheduled and retrying jobs by their exact Unix millisecond. asynq's own zsets hold whole seconds.
func DueKey(queue string) string { return OwnPrefix(queue) + "due" }

// AlarmKey is a list that gets an element when a job falls due before all others: the keeper sleeps on it.
func AlarmKey(queue string) string { return OwnPrefix(queue) + "alarm" }

// SentKey is a sender's last request to store jobs and its answers. It expires.
func SentKey(queue, sender string) string { return OwnPrefix(queue) + "sent:" + sender }

// UndecodableKey is the zset of jobs whose message can't be decoded, scored by when they were set aside, in Unix seconds.
// Their hashes are kept for inspection.
func UndecodableKey(queue string) string { return OwnPrefix(queue) + "undecodable" }

// WatchKey is a list that holds the queue's one watch, while no worker has it: its holder blocks on the pending list.
func WatchKey(queue string) string { return OwnPrefix(queue) + "watch" }

// WatcherKey names the worker that has the watch. It expires, so that the watch of a dead worker is made anew.
func WatcherKey(queue string) string { return OwnPrefix(queue) + "watcher" }

// AggregationSetKey is the zset of a group's jobs that are being aggregated together.
func AggregationSetKey(queue, group, set string) string { return GroupKey(queue, group) + ":" + set }

// SuspectsKey exists while jobs may be in the queue that one more crash would quarantine: each fetch looks for them then.
func SuspectsKey(queue string) string { return OwnPrefix(queue) + "suspects" }

// AwaitedKey is the hash of jobs whose end somebody awaits: id -> the channels to tell it on. It expires.
func AwaitedKey(queue string) string { return OwnPrefix(queue) + "awaited" }

// EndedChannel is a process' own channel: it is told there of the ends of jobs that it awaits.
func EndedChannel(process string) string { return "bellhop:ended:" + process }

// AliveTag is in the name of every alive channel, so that one node of a Cluster knows all of them.
const AliveTag = "bellhop:{alive}"

// HoldingsKey notes for a minute how many jobs and suspects a dead worker held, in all its queues.
func HoldingsKey(worker string) string { return AliveTag + ":held:" + worker }

// AliveChannel is a worker's own channel. It subscribes to it: as long as its process lives, Redis counts a subscriber. What is said there
// is the name of a queue that nobody keeps any more.
func AliveChannel(worker string) string { return AliveTag + ":" + worker }
