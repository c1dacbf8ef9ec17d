#!lua flags=allow-oom
-- Gives a queue's watch back to those who wait for it, if the worker has it.
--
-- KEYS[1] bellhop:{q}:watch
-- KEYS[2] bellhop:{q}:watcher
-- ARGV[1] worker
--
-- Returns 1 if it had the watch, else 0.

if redis.call("GET", KEYS[2]) ~= ARGV[1] then
	return 0
end
redis.call("DEL", KEYS[2])
redis.call("LPUSH", KEYS[1], "1")
redis.call("LTRIM", KEYS[1], 0, 0)
return 1
