#!lua flags=allow-oom
-- Keeps that an effect has taken place. That is true whoever holds the key by now: so it is kept even if another run has taken it,
-- which then loses it and is told to stop.
--
-- KEYS[1] bellhop:once:<key>
-- ARGV[1] owner
-- ARGV[2] fence
-- ARGV[3] milliseconds that the key is remembered
-- ARGV[4] result; absent if none is kept
--
-- Returns 1, or 0 if another run has taken the key since: the effect may have taken place twice.

local held = redis.call("HMGET", KEYS[1], "state", "owner", "fence")
local mine = not held[1] or held[2] == ARGV[1]
if held[1] == "done" then
	return mine and 1 or 0
end
local fence = math.max(tonumber(held[3] or 0), tonumber(ARGV[2]))
redis.call("HSET", KEYS[1], "state", "done", "owner", ARGV[1], "fence", fence)
if ARGV[4] then
	redis.call("HSET", KEYS[1], "result", ARGV[4])
end
redis.call("HDEL", KEYS[1], "until")
redis.call("PEXPIRE", KEYS[1], ARGV[3])
return mine and 1 or 0
