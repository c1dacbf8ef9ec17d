#!lua flags=allow-oom
-- A worker's sign of life: it extends the leases of the jobs that it owns. It takes the keeping of the queue if nobody has it.
--
-- KEYS[1] asynq:{q}:lease
-- KEYS[2] asynq:{q}:paused
-- KEYS[3] bellhop:{q}:owners
-- KEYS[4] bellhop:{q}:beats
-- KEYS[5] bellhop:{q}:keeper
-- ARGV[1] worker
-- ARGV[2] lease in seconds
-- ARGV[3] milliseconds that the keeping lasts without a beat; 0 = don't keep
-- then two for each job: id, attempt
--
-- Returns the seconds and microseconds of Redis' clock, 1 if the queue is paused, 1 if the worker keeps the queue, then the
-- place (from 1) of each job that the worker does not own.

local now = redis.call("TIME")
local worker = ARGV[1]
redis.call("ZADD", KEYS[4], now[1] * 1000 + math.floor(now[2] / 1000), worker)

local keeper = 0
if tonumber(ARGV[3]) > 0 then
	if redis.call("SET", KEYS[5], worker, "NX", "PX", ARGV[3]) then
		keeper = 1
	elseif redis.call("GET", KEYS[5]) == worker then
		redis.call("PEXPIRE", KEYS[5], ARGV[3])
		keeper = 1
	end
end
local reply = {tonumber(now[1]), tonumber(now[2]), redis.call("EXISTS", KEYS[2]), keeper}

local ids = {}
for i = 4, #ARGV, 2 do
	ids[#ids + 1] = ARGV[i]
end
if #ids == 0 then
	return reply
end
local owners = redis.call("HMGET", KEYS[3], unpack(ids))
local leases = redis.call("ZMSCORE", KEYS[1], unpack(ids))
local lease = string.format("%d.5", now[1] + ARGV[2])
local extended = {}
for n, id in ipairs(ids) do
	if owners[n] == worker .. ":" .. ARGV[3 + 2 * n] and leases[n] and string.sub(leases[n], -2) == ".5" then
		extended[#extended + 1] = lease
		extended[#extended + 1] = id
	else
		reply[#reply + 1] = n
	end
end
if #extended > 0 then
	redis.call("ZADD", KEYS[1], "XX", unpack(extended))
end
return reply
