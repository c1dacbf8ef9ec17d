#!lua flags=allow-oom
-- Looks at every group of a queue. Where a group is full, its oldest job has waited long enough or nothing has come for the
-- grace period, its jobs go into an aggregation set. Sets that nobody finished are put back first.
--
-- KEYS[1] asynq:{q}:groups
-- KEYS[2] asynq:{q}:aggregation_sets
-- ARGV[1] prefix of the groups' zsets, asynq:{q}:g:
-- ARGV[2] the most jobs of a set, 0 = any number
-- ARGV[3] the longest that a job waits, in seconds, 0 = for ever
-- ARGV[4] grace period in seconds
-- ARGV[5] seconds that aggregating a set may take
-- ARGV[6] a word that no other call has, to name the sets
--
-- Returns two for each set made: group, set.

local now_s = tonumber(redis.call("TIME")[1])
local max_size, max_delay, grace = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local function copy(from, last, to)
	local some = redis.call("ZRANGE", from, 0, last, "WITHSCORES")
	for i = 1, #some, 1000 do
		local args = {}
		for j = i, math.min(i + 999, #some), 2 do
			args[#args + 1] = some[j + 1]
			args[#args + 1] = some[j]
		end
		redis.call("ZADD", to, unpack(args))
	end
end

for _, set in ipairs(redis.call("ZRANGEBYSCORE", KEYS[2], "-inf", now_s)) do
	local group = string.match(set, "^(.*):[^:]*$")
	copy(set, -1, group)
	redis.call("DEL", set)
	redis.call("ZREM", KEYS[2], set)
	if redis.call("EXISTS", group) == 1 then
		redis.call("SADD", KEYS[1], string.sub(group, #ARGV[1] + 1))
	end
end

local function ready(zset, size)
	if max_size ~= 0 and size >= max_size then
		return true
	end
	if max_delay ~= 0 and tonumber(redis.call("ZRANGE", zset, 0, 0, "WITHSCORES")[2]) <= now_s - max_delay then
		return true
	end
	return tonumber(redis.call("ZRANGE", zset, -1, -1, "WITHSCORES")[2]) <= now_s - grace
end

local reply = {}
for _, group in ipairs(redis.call("SMEMBERS", KEYS[1])) do
	local zset = ARGV[1] .. group
	local size = redis.call("ZCARD", zset)
	if size > 0 and ready(zset, size) then
		local id = ARGV[6] .. "-" .. (#reply / 2 + 1)
		local set = zset .. ":" .. id
		copy(zset, max_size - 1, set)
		redis.call("ZREMRANGEBYRANK", zset, 0, max_size - 1)
		redis.call("ZADD", KEYS[2], now_s + ARGV[5], set)
		if redis.call("EXISTS", zset) == 0 then
			redis.call("SREM", KEYS[1], group)
		end
		reply[#reply + 1] = group
		reply[#reply + 1] = id
	end
end
return reply
