#!lua flags=allow-oom
-- Takes the oldest pending job for a worker that has waited for it, and hands the watch on: fetch.lua for what comes to an idle fleet. It
-- stands in Redis behind the worker's blocking command, so that a push runs it, in a Redis that has slept: each kind of command costs some
-- 12 us then.
--
-- KEYS[1] asynq:{q}:pending
-- KEYS[2] asynq:{q}:active
-- KEYS[3] asynq:{q}:lease
-- KEYS[4] asynq:{q}:paused
-- KEYS[5] bellhop:{q}:marks
-- KEYS[6] bellhop:{q}:suspects
-- KEYS[7] bellhop:{q}:watch
-- KEYS[8] bellhop:{q}:watcher
-- ARGV[1] prefix of the jobs' hashes, asynq:{q}:t:
-- ARGV[2] worker
-- ARGV[3] the worker's entry in its marks, as watch.lua has left it: another one, or none, means that the worker has left, was reaped, or
--   has fetched since
-- ARGV[4] lease in seconds
-- ARGV[5] the mark as a fraction, ".000244140625"
-- ARGV[6] how long the watch stays with a worker that says nothing (ms)
--
-- Returns nothing if there is no job, and 0 if the job is one for fetch.lua to see to. Else the seconds and microseconds of Redis' clock, the
-- jobs left in pending, the job's id and message.

local call = redis.call
if call("HGET", KEYS[5], ARGV[2]) ~= ARGV[3] then
	return 0
end
local id = call("RPOP", KEYS[1])
if not id then
	return {}
end

local function putBack()
	call("RPUSH", KEYS[1], id)
	return 0
end

local key, left = ARGV[1] .. id, 0
if call("EXISTS", KEYS[1], KEYS[4], KEYS[6]) > 0 then
	if call("EXISTS", KEYS[4]) == 1 or call("EXISTS", KEYS[6]) == 1 and redis.pcall("HEXISTS", key, "bellhop_suspect") ~= 0 then
		return putBack()
	end
	left = call("LLEN", KEYS[1])
end
local msg = redis.pcall("HGET", key, "msg")
if type(msg) ~= "string" then
	return putBack()
end

-- The next idle worker looks while this one works, whatever becomes of it.
local watcher = call("GETDEL", KEYS[8])
if watcher == ARGV[2] then
	if call("LPUSH", KEYS[7], "1") > 1 then
		call("LTRIM", KEYS[7], 0, 0)
	end
elseif watcher then
	call("SET", KEYS[8], watcher, "PX", ARGV[6]) -- another one has it by now
end

call("HSET", key, "state", "active")
local now = call("TIME")
local lease = now[1] + ARGV[4] .. ARGV[5]
if call("LPUSH", KEYS[2], id) > 4 then
	local long = "{" .. string.rep("\0", 64) -- makes a skip list of the leases, see fetch.lua
	call("ZADD", KEYS[3], 0, long, lease, id)
	call("ZREM", KEYS[3], long)
else
	call("ZADD", KEYS[3], lease, id)
end
return {tonumber(now[1]), tonumber(now[2]), left, id, msg}
