#!lua flags=allow-oom
-- Tells where jobs of one queue stand, and marks those that have not ended: their end is then told on the asker's channel.
--
-- KEYS[1] bellhop:{q}:awaited, hash of job id -> the channels to tell its end on
-- KEYS[2] bellhop:{q}:calls, its field "awaited" is the second until which somebody may wait for a job
-- KEYS[3] asynq:{q}:scheduled
-- KEYS[4] asynq:{q}:retry
-- KEYS[5] bellhop:{q}:due
-- ARGV[1] prefix of the jobs' hashes, asynq:{q}:t:
-- ARGV[2] channel to tell the end on; "" only looks
-- ARGV[3] seconds that a mark lasts without another look
-- then the jobs' ids
--
-- Returns four for each job: state ("" = there is no such job), message, result, next start (Unix ms, 0 = none).

local now_s = tonumber(redis.call("TIME")[1])
local most_channels = 16 -- for each job: processes that died left theirs behind

local ended = {completed = true, archived = true, undecodable = true}

local function mark(id)
	local channels = redis.call("HGET", KEYS[1], id)
	if not channels then
		redis.call("HSET", KEYS[1], id, ARGV[2])
		return
	end
	local others, n = "", 0
	for channel in string.gmatch(channels, "%S+") do
		n = n + 1
		if channel == ARGV[2] then
			return
		elseif n < most_channels then
			others = others .. " " .. channel
		end
	end
	redis.call("HSET", KEYS[1], id, ARGV[2] .. others)
end

local function start(zset, id)
	local second = tonumber(redis.call("ZSCORE", zset, id) or nil)
	if not second then
		return "0"
	end
	local exact = tonumber(redis.call("ZSCORE", KEYS[5], id) or nil)
	if exact and math.ceil(exact / 1000) == second then
		return string.format("%.0f", exact)
	end
	return string.format("%.0f", second * 1000)
end

local reply, marked = {}, false
for i = 4, #ARGV do
	local id = ARGV[i]
	local job = redis.call("HMGET", ARGV[1] .. id, "state", "msg", "result")
	local next_start = "0"
	if job[1] == "scheduled" then
		next_start = start(KEYS[3], id)
	elseif job[1] == "retry" then
		next_start = start(KEYS[4], id)
	end
	if ARGV[2] ~= "" and job[1] and not ended[job[1]] then
		mark(id)
		marked = true
	end
	reply[#reply + 1] = job[1] or ""
	reply[#reply + 1] = job[2] or ""
	reply[#reply + 1] = job[3] or ""
	reply[#reply + 1] = next_start
end
if marked then
	redis.call("EXPIRE", KEYS[1], ARGV[3])
	redis.call("HSET", KEYS[2], "awaited", now_s + ARGV[3])
end
return reply
