#!lua flags=allow-oom
-- Gives a queue's watch back to those who wait for it, if the worker has it.
--
-- KEYS[1] bellhop:{q}:watch
-- KEYS[2] bellhop:{q}:watcher
-- ARGV[1] worker
-- ARGV[2] 1 if the watch is to be made anew where nobody is noted to have it: the worker has taken it from the list, or a lost answer may have
--   taken it along. Else somebody may just have taken it.
--
-- Returns 1 if it had the watch, else 0.

local watcher = redis.call("GET", KEYS[2])
if watcher ~= ARGV[1] and (watcher or ARGV[2] ~= "1") then
	return 0
end
redis.call("DEL", KEYS[2])
if redis.call("LPUSH", KEYS[1], "1") > 1 then
	redis.call("LTRIM", KEYS[1], 0, 0)
end
return watcher and 1 or 0
