#!lua flags=allow-oom
-- Writes a worker's record and its beat, and forgets workers that have been silent for long.
--
-- KEYS[1] bellhop:{fleet}:workers
-- KEYS[2] bellhop:{fleet}:worker:<id>
-- ARGV[1] worker id
-- ARGV[2] record, JSON; "" if it stands there already
-- ARGV[3] ms after which a silent worker is forgotten
--
-- Returns 1 if the worker was here before, else 0: it is new, or Redis was flushed, and its record and tasks must be written (again).

local now = redis.call("TIME")
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
if ARGV[2] ~= "" then
	redis.call("SET", KEYS[2], ARGV[2], "PX", ARGV[3])
end
if redis.call("ZADD", KEYS[1], now_ms, ARGV[1]) == 0 then
	return 1
end
-- A newcomer tidies up. So is everybody after a flush, which took the tasks too.
redis.call("ZREMRANGEBYSCORE", KEYS[1], "-inf", now_ms - ARGV[3])
return 0
