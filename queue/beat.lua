#!lua flags=allow-oom
-- A worker's sign of life: it extends the leases of the jobs that it owns. It takes the keeping of the queue if nobody has it.
--
-- KEYS[1] asynq:{q}:lease
-- KEYS[2] bellhop:{q}:marks
-- KEYS[3] bellhop:{q}:beats
-- KEYS[4] bellhop:{q}:keeper
-- KEYS[5] bellhop:{q}:watch
-- KEYS[6] bellhop:{q}:watcher
-- ARGV[1] worker
-- ARGV[2] lease in seconds
-- ARGV[3] milliseconds that the keeping lasts without a beat; 0 = don't keep
-- then two for each job: id, mark
--
-- Returns the seconds and microseconds of Redis' clock, 1 if the worker keeps the queue, then the place (from 1) of each job that the
-- worker does not own.

local now = redis.call("TIME")
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local worker, lease = ARGV[1], tonumber(ARGV[2])
local number = #ARGV > 3 and number_of(redis.call("HGET", KEYS[2], worker))

local keeper = 0
if tonumber(ARGV[3]) > 0 then
	local who = redis.call("GET", KEYS[4])
	if not who then
		redis.call("SET", KEYS[4], worker, "PX", ARGV[3])
		keeper = 1
	elseif who == worker then
		redis.call("PEXPIRE", KEYS[4], ARGV[3])
		keeper = 1
	end
end
local reply = {tonumber(now[1]), tonumber(now[2]), keeper}

-- The watch went with a worker that died: make it anew.
if redis.call("EXISTS", KEYS[5], KEYS[6]) == 0 then
	redis.call("LPUSH", KEYS[5], "1")
end

local ids, extended = {}, {}
local function extend(first)
	local leases = redis.call("ZMSCORE", KEYS[1], unpack(ids))
	for n, id in ipairs(ids) do
		local mark = tonumber(ARGV[first + 2 * n - 1])
		if leases[n] and mark_of(leases[n]) == mark and math.floor(mark / fetch_marks) == number then
			extended[#extended + 1] = string.format("%.17g", now[1] + lease + mark / marks)
			extended[#extended + 1] = id
		else
			reply[#reply + 1] = (first - 4) / 2 + n
		end
	end
	if #extended > 0 then
		redis.call("ZADD", KEYS[1], "XX", unpack(extended))
	end
	ids, extended = {}, {}
end

local first = 4
for i = 4, #ARGV, 2 do
	ids[#ids + 1] = ARGV[i]
	if #ids == 500 then
		extend(first)
		first = i + 2
	end
end
if #ids > 0 then
	extend(first)
end
redis.call("ZADD", KEYS[3], now_ms, worker)
return reply
