#!lua flags=allow-oom
-- Reads an aggregation set, the oldest job first. Ids without a body are left out of it.
--
-- KEYS[1] asynq:{q}:g:<group>:<set>
-- KEYS[2] asynq:{q}:aggregation_sets
-- ARGV[1] prefix of the jobs' hashes, asynq:{q}:t:
--
-- Returns how many ms the set may still be worked on (0 if there is no such set), then two for each job: id, message.

local deadline = redis.call("ZSCORE", KEYS[2], KEYS[1])
local now = redis.call("TIME")
local left_ms = deadline and deadline * 1000 - now[1] * 1000 - math.floor(now[2] / 1000) or 0
local reply = {string.format("%d", math.max(left_ms, 0))}
for _, id in ipairs(redis.call("ZRANGE", KEYS[1], 0, -1)) do
	local msg = redis.call("HGET", ARGV[1] .. id, "msg")
	if msg then
		reply[#reply + 1] = id
		reply[#reply + 1] = msg
	else
		redis.call("ZREM", KEYS[1], id)
	end
end
return reply
