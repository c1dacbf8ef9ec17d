#!lua flags=allow-oom
-- Gives the key back after a run that failed: the next one need not wait for the end of the lease. The fence stays.
--
-- KEYS[1] bellhop:once:<key>
-- ARGV[1] owner
-- ARGV[2] milliseconds that the key is remembered
--
-- Returns 1, or 0 if the run does not hold the key any more.

local held = redis.call("HMGET", KEYS[1], "state", "owner")
if held[1] ~= "running" or held[2] ~= ARGV[1] then
	return 0
end
redis.call("HSET", KEYS[1], "state", "open")
redis.call("HDEL", KEYS[1], "until")
redis.call("PEXPIRE", KEYS[1], ARGV[2])
return 1
