#!lua flags=allow-oom
-- Removes a job that does not run, with its lock.
--
-- KEYS[1] asynq:{q}:t:<id>
-- KEYS[2] asynq:{q}:pending
-- KEYS[3] asynq:{q}:scheduled
-- KEYS[4] asynq:{q}:retry
-- KEYS[5] asynq:{q}:archived
-- KEYS[6] asynq:{q}:completed
-- KEYS[7] asynq:{q}:groups
-- KEYS[8] bellhop:{q}:undecodable
-- KEYS[9] bellhop:{q}:due
-- KEYS[10] bellhop:{q}:awaited
-- ARGV[1] id
-- ARGV[2] prefix of the jobs' hashes, asynq:{q}:t:
-- ARGV[3] prefix of the groups, asynq:{q}:g:
-- ARGV[4] the only state to remove it in; "" = any
--
-- Returns 1; 0 if there is no such job, or not in that state; -1 if it runs, or is being aggregated.

local job = redis.call("HMGET", KEYS[1], "state", "group", "unique_key")
local state, group, unique = job[1], job[2], job[3]
if redis.call("EXISTS", KEYS[1]) == 0 then
	return 0
elseif ARGV[4] ~= "" and state ~= ARGV[4] then
	return 0
elseif state == "active" then
	return -1
end

local zsets = {scheduled = KEYS[3], retry = KEYS[4], archived = KEYS[5], completed = KEYS[6], undecodable = KEYS[8]}
if state == "pending" then
	redis.call("LREM", KEYS[2], 0, ARGV[1])
elseif state == "aggregating" then
	local waiting = ARGV[3] .. (group or "")
	if redis.call("ZREM", waiting, ARGV[1]) == 0 then
		return -1
	elseif redis.call("ZCARD", waiting) == 0 then
		redis.call("SREM", KEYS[7], group)
	end
elseif zsets[state] then
	redis.call("ZREM", zsets[state], ARGV[1])
end
redis.call("ZREM", KEYS[9], ARGV[1])
teller()(KEYS[10], ARGV[2], {ARGV[1]}, function() return "gone" end, function() end)
if unique and unique ~= "" and redis.pcall("GET", unique) == ARGV[1] then
	redis.call("DEL", unique)
end
return redis.call("DEL", KEYS[1])
