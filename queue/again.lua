#!lua flags=allow-oom
-- Takes the watch back that a claim has just handed on, if nobody stood in line for it and nothing is left: a worker with more free slots goes
-- on looking without another round trip.
--
-- KEYS[1] bellhop:{q}:watch
-- KEYS[2] bellhop:{q}:watcher
-- KEYS[3] asynq:{q}:pending
-- ARGV[1] worker
-- ARGV[2] how long the watch stays with a worker that says nothing (ms)
--
-- Returns 1 if the worker has it, else 0.

if redis.call("EXISTS", KEYS[3]) == 1 or not redis.call("RPOP", KEYS[1]) then
	return 0
end
redis.call("SET", KEYS[2], ARGV[1], "PX", ARGV[2])
return 1
