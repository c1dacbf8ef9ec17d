#!lua flags=allow-oom
-- Deletes an aggregation set and its jobs, once the job that they became is stored. Locks that they hold are released.
--
-- KEYS[1] asynq:{q}:g:<group>:<set>
-- KEYS[2] asynq:{q}:aggregation_sets
-- KEYS[3] bellhop:{q}:awaited
-- ARGV[1] prefix of the jobs' hashes, asynq:{q}:t:
-- then two for each lock that a job of the set holds: id, lock
--
-- Returns how many jobs were deleted; 0 if the set was given up and put back, or deleted before.

local ids = redis.call("ZRANGE", KEYS[1], 0, -1)
for i = 1, #ids, 1000 do
	local some = {unpack(ids, i, math.min(i + 999, #ids))}
	teller()(KEYS[3], ARGV[1], some, function() return "gone" end, function() end)
end
local of_set = {}
for _, id in ipairs(ids) do
	of_set[id] = true
	redis.call("DEL", ARGV[1] .. id)
end
for i = 2, #ARGV, 2 do
	if of_set[ARGV[i]] and redis.pcall("GET", ARGV[i + 1]) == ARGV[i] then
		redis.call("DEL", ARGV[i + 1])
	end
end
redis.call("DEL", KEYS[1])
redis.call("ZREM", KEYS[2], KEYS[1])
return #ids
