#!lua flags=allow-oom
-- Removes completed jobs whose retention is over, dead jobs over asynq's limits, and leases of jobs that are gone.
-- Jobs whose lease has ended though a worker owns them go back to the head of pending: a lost answer hid them from it, or it was
-- forgotten. No retry is spent, no crash counted. Those of a silent worker are left to who reaps it. Those of a stock server are left
-- for a minute to another one, which would take them after 30 s; then none lives. Workers that have not beaten
-- for ten minutes are forgotten.
--
-- KEYS[1] asynq:{q}:completed
-- KEYS[2] asynq:{q}:archived
-- KEYS[3] asynq:{q}:lease
-- KEYS[4] asynq:{q}:active
-- KEYS[5] bellhop:{q}:marks
-- KEYS[6] asynq:{q}:pending
-- KEYS[7] bellhop:{q}:beats
-- KEYS[8] bellhop:{q}:calls
-- ARGV[1] prefix of the jobs' hashes, asynq:{q}:t:
-- ARGV[2] the most jobs to look at, of each kind
--
-- Returns the completed jobs removed, the dead jobs removed, the leases without a job removed, the jobs given back,
-- 1 if there may be more.

local now = redis.call("TIME")
local now_s = tonumber(now[1])
local now_ns = now[1] .. string.format("%06d", now[2]) .. "000"
local limit = tonumber(ARGV[2])
local more = 0

local function remove(zset, ids, locks)
	for _, id in ipairs(ids) do
		local key = ARGV[1] .. id
		if locks then
			local unique = redis.call("HGET", key, "unique_key")
			if unique and redis.pcall("GET", unique) == id then
				redis.call("DEL", unique)
			end
		end
		redis.call("DEL", key)
	end
	if #ids > 0 then
		redis.call("ZREM", zset, unpack(ids))
	end
	if #ids >= limit then
		more = 1
	end
	return #ids
end

local completed = remove(KEYS[1], redis.call("ZRANGEBYSCORE", KEYS[1], "-inf", now_s, "LIMIT", 0, limit), false)
local dead = remove(KEYS[2], redis.call("ZRANGEBYSCORE", KEYS[2], "-inf", now_s - 90 * 86400, "LIMIT", 0, limit), true)
local over = redis.call("ZCARD", KEYS[2]) - 9999
if over > 0 then
	dead = dead + remove(KEYS[2], redis.call("ZRANGE", KEYS[2], 0, math.min(over, limit) - 1), true)
end

-- A lease that ended without a body: nobody can run or recover it.
local orphans = 0
for _, id in ipairs(redis.call("ZRANGEBYSCORE", KEYS[3], "-inf", now_s - 1, "LIMIT", 0, limit)) do
	if redis.call("EXISTS", ARGV[1] .. id) == 0 then
		redis.call("ZREM", KEYS[3], id)
		redis.call("LREM", KEYS[4], 0, id)
		orphans = orphans + 1
	end
end

-- The workers by their numbers, read when the first lease is found that has ended.
local names = false
local function owner_of(mark)
	if not names then
		names = {}
		local workers = redis.call("HGETALL", KEYS[5])
		for i = 1, #workers, 2 do
			if workers[i] ~= "" then
				names[number_of(workers[i + 1]) or 0] = workers[i]
			end
		end
	end
	return names[math.floor(mark / fetch_marks)]
end
local function reaper_comes(mark)
	local owner = owner_of(mark)
	local beat = owner and redis.call("ZSCORE", KEYS[7], owner)
	return beat and now_s * 1000 - beat > 10000
end
local back = 0
local ended = redis.call("ZREVRANGEBYSCORE", KEYS[3], now_s - 1, "-inf", "WITHSCORES", "LIMIT", 0, limit)
for i = 1, #ended, 2 do
	local id, mark = ended[i], mark_of(ended[i + 1])
	local ours = mark > 0 and not reaper_comes(mark)
	local nobodys = mark == 0 and now_s - ended[i + 1] > 60
	if (ours or nobodys) and redis.call("EXISTS", ARGV[1] .. id) == 1 then
		redis.call("ZREM", KEYS[3], id)
		redis.call("LREM", KEYS[4], 1, id)
		redis.call("HSET", ARGV[1] .. id, "state", "pending", "pending_since", now_ns)
		redis.call("RPUSH", KEYS[6], id)
		back = back + 1
	end
end

local silent = redis.call("ZRANGEBYSCORE", KEYS[7], "-inf", (now_s - 600) * 1000, "LIMIT", 0, limit)
for _, worker in ipairs(silent) do
	redis.call("ZREM", KEYS[7], worker)
	redis.call("HDEL", KEYS[5], worker)
	redis.call("HDEL", KEYS[8], worker .. ":finish", worker .. ":done")
end

return {completed, dead, orphans, back, more}
