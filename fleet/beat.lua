-- Writes a worker's record and its beat, and forgets workers that have been silent for long.
--
-- KEYS[1] bellhop:{fleet}:workers
-- KEYS[2] bellhop:{fleet}:worker:<id>
-- KEYS[3] bellhop:{fleet}:tasks
-- ARGV[1] worker id
-- ARGV[2] record, JSON
-- ARGV[3] ms after which a silent worker is forgotten
--
-- Returns 1 if the registry of tasks stands, 0 if it is gone and must be written again.

local now = redis.call("TIME")
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
if redis.call("ZADD", KEYS[1], now_ms, ARGV[1]) == 1 then -- a newcomer tidies up
	redis.call("ZREMRANGEBYSCORE", KEYS[1], "-inf", now_ms - ARGV[3])
end
redis.call("SET", KEYS[2], ARGV[2], "PX", ARGV[3])
return redis.call("EXISTS", KEYS[3])
