#!lua flags=allow-oom
-- Moves scheduled and retrying jobs whose time has come to pending, or into their group. What bellhop wrote is due at its
-- millisecond (the index), what stock asynq wrote at its second (the score). An entry of the index counts only while the job
-- still stands in asynq's zset at that millisecond's second, rounded up: stock tools that run, archive or delete a job leave
-- the entry behind.
--
-- KEYS[1] asynq:{q}:scheduled
-- KEYS[2] asynq:{q}:retry
-- KEYS[3] asynq:{q}:pending
-- KEYS[4] asynq:{q}:groups
-- KEYS[5] bellhop:{q}:due
-- ARGV[1] prefix of the jobs' hashes, asynq:{q}:t:
-- ARGV[2] prefix of the groups' zsets, asynq:{q}:g:
-- ARGV[3] the most jobs to move
--
-- Returns the seconds and microseconds of Redis' clock, the jobs moved, the ids without a body dropped, the milliseconds until
-- the next job is due (0: at once, there are more; -1: there is none).

local now = redis.call("TIME")
local now_s = tonumber(now[1])
local now_ms = now_s * 1000 + math.floor(now[2] / 1000)
local now_ns = now[1] .. string.format("%06d", now[2]) .. "000"
local limit = tonumber(ARGV[3])
local moved, dropped = 0, 0

local function until_next()
	local wait = -1
	local function sooner(zset, unit)
		local first = redis.call("ZRANGE", zset, 0, 0, "WITHSCORES")
		if first[2] then
			local ms = math.max(math.ceil(first[2]) * unit - now_ms, 0)
			if wait < 0 or ms < wait then
				wait = ms
			end
		end
	end
	sooner(KEYS[5], 1)
	sooner(KEYS[1], 1000)
	sooner(KEYS[2], 1000)
	return wait
end

-- Most calls find nothing to do.
local wait = until_next()
if wait ~= 0 then
	return {now_s, tonumber(now[2]), 0, 0, wait}
end

local function move(zset, id)
	local key = ARGV[1] .. id
	redis.call("ZREM", zset, id)
	local group = redis.call("HMGET", key, "state", "group")
	if not group[1] then
		dropped = dropped + 1
		return
	end
	group = group[2]
	if group and group ~= "" then
		redis.call("ZADD", ARGV[2] .. group, now_s, id)
		redis.call("SADD", KEYS[4], group)
		redis.call("HSET", key, "state", "aggregating")
	else
		redis.call("LPUSH", KEYS[3], id)
		redis.call("HSET", key, "state", "pending", "pending_since", now_ns)
	end
	moved = moved + 1
end

local exact = redis.call("ZRANGEBYSCORE", KEYS[5], "-inf", now_ms, "WITHSCORES", "LIMIT", 0, limit)
local looked = {}
for i = 1, #exact, 2 do
	local id, second = exact[i], math.ceil(exact[i + 1] / 1000)
	looked[#looked + 1] = id
	for z = 1, 2 do
		if tonumber(redis.call("ZSCORE", KEYS[z], id) or -1) == second then
			move(KEYS[z], id)
			break
		end
	end
end
if #looked > 0 then
	redis.call("ZREM", KEYS[5], unpack(looked))
end

local full = #looked >= limit
for z = 1, 2 do
	local room = limit - moved - dropped
	if room > 0 then
		local ids = redis.call("ZRANGEBYSCORE", KEYS[z], "-inf", now_s, "LIMIT", 0, room)
		for _, id in ipairs(ids) do
			move(KEYS[z], id)
		end
		if #ids > 0 then
			redis.call("ZREM", KEYS[5], unpack(ids))
		end
		full = full or #ids >= room
	end
end

return {now_s, tonumber(now[2]), moved, dropped, full and 0 or until_next()}
