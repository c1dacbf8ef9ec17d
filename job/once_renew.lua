#!lua flags=allow-oom
-- Extends the lease of a run that goes on.
--
-- KEYS[1] bellhop:once:<key>
-- ARGV[1] owner
-- ARGV[2] lease in milliseconds
-- ARGV[3] milliseconds that the key is remembered
--
-- Returns 1, or 0 if the run does not hold the key any more.

local held = redis.call("HMGET", KEYS[1], "state", "owner")
if held[1] ~= "running" or held[2] ~= ARGV[1] then
	return 0
end
local now = redis.call("TIME")
redis.call("HSET", KEYS[1], "until", now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[2])
redis.call("PEXPIRE", KEYS[1], ARGV[2] + ARGV[3])
return 1
