#!lua flags=allow-oom
-- Takes jobs from pending to active, the oldest first, and writes into their leases who owns them. Ids without a body are dropped and
-- counted. Ids that the caller holds back go to the end of the line. pending_since stays until the job leaves active: taking it out costs
-- as much as the rest of the job's fetch, and nobody reads it meanwhile. A resent request gets the jobs of the first one that are still its own.
-- Suspects, jobs that one more crash would quarantine, are taken one at a time: the others go to the end of the line too.
--
-- KEYS[1] asynq:{q}:pending
-- KEYS[2] asynq:{q}:active
-- KEYS[3] asynq:{q}:lease
-- KEYS[4] asynq:{q}:paused
-- KEYS[5] bellhop:{q}:marks
-- KEYS[6] bellhop:{q}:watch
-- KEYS[7] bellhop:{q}:watcher
-- KEYS[8] bellhop:{q}:beats
-- KEYS[9] bellhop:{q}:suspects
-- ARGV[1] prefix of the jobs' hashes, asynq:{q}:t:
-- ARGV[2] worker
-- ARGV[3] request: new for each request, the same when it is sent again
-- ARGV[4] the request's place in the worker's marks, see marks.lua
-- ARGV[5] the most jobs to take
-- ARGV[6] lease in seconds
-- ARGV[7] 1 if the worker holds no job of the queue
-- ARGV[8] 1 if the worker's process holds no suspect
-- ARGV[9] 1 if the worker has the queue's watch
-- ARGV[10] 1 if an earlier copy of the request may be on its way
-- ARGV[11] how many of the following ids are held back, then those ids
--
-- Returns the seconds and microseconds of Redis' clock, the jobs left in pending, 0 | 1 if the queue is paused | 2 if the worker
-- must beat first, the ids dropped, the ids held back, the place (from 1) of the suspect among the jobs or 0, the worker's number, 1 if the
-- worker has the queue's watch, then two for each job: id, message.
--
-- Most of a call's time is spent between Lua and Redis, so a number that many arguments share is made a string once, and what is
-- usually not there is asked for by one command.

local call, pcall = redis.call, redis.pcall
local length = call("LLEN", KEYS[1])
local now = call("TIME")
local prefix, worker, request, want = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[5])
local reply = {tonumber(now[1]), tonumber(now[2]), 0, 0, 0, 0, 0, 0, 0}
local head = #reply
local paused, suspected = false, false
if call("EXISTS", KEYS[4], KEYS[9]) > 0 then
	paused, suspected = call("EXISTS", KEYS[4]) == 1, call("EXISTS", KEYS[9]) == 1
end

-- Whoever finds jobs hands the watch on: the next idle worker looks while this one works.
if ARGV[9] == "1" and call("GET", KEYS[7]) == worker then
	if length > 0 then
		call("DEL", KEYS[7])
		if call("LPUSH", KEYS[6], "1") > 1 then
			call("LTRIM", KEYS[6], 0, 0)
		end
	else
		reply[9] = 1
	end
end
reply[3] = length

local number, last
local owner = call("HGET", KEYS[5], worker)
if owner then
	number, last = string.match(owner, "^(%d+) (.*)$")
	number = tonumber(number)
	local session, count = string.match(request, "^(.*)f(%d+)$")
	local last_session, last_count = string.match(last, "^(.*)%a(%d+)$")
	local ahead = session and session == last_session and tonumber(count) - tonumber(last_count) or 1
	-- A copy of an earlier request that was long on its way: what it took, nobody would know of.
	if ahead < 0 then
		return redis.error_reply("STALE a later request was answered")
	end
	if ahead == 0 and (last == request or ARGV[10] == "1") then
		reply[8] = number
		if last ~= request then
			call("HSET", KEYS[5], worker, number .. " " .. request) -- it was a claim, which runs no more now
		end
		local mark = number * fetch_marks + ARGV[4]
		local mine, all = {}, call("ZRANGE", KEYS[3], 0, -1, "WITHSCORES")
		for i = 1, #all, 2 do
			if (tonumber(all[i + 1]) % 1) * marks == mark then
				mine[all[i]] = true
			end
		end
		local active = next(mine) and call("LRANGE", KEYS[2], 0, -1) or {}
		for i = #active, 1, -1 do
			local id = active[i]
			if mine[id] then
				reply[#reply + 1] = id
				reply[#reply + 1] = call("HGET", prefix .. id, "msg") or ""
				if suspected and call("HEXISTS", prefix .. id, "bellhop_suspect") == 1 then
					reply[7] = (#reply - head) / 2
				end
			end
		end
		return reply
	end
end

if not number then
	-- The next one that nobody has.
	local taken, most = {}, marks / fetch_marks - 1
	for _, other in ipairs(call("HVALS", KEYS[5])) do
		taken[tonumber(string.match(other, "^%d+") or 0)] = true
	end
	for _ = 1, most do
		number = (call("HINCRBY", KEYS[5], "", 1) - 1) % most + 1
		if not taken[number] then
			break
		end
		number = nil
	end
	if not number then
		return redis.error_reply("ERR the queue has as many workers as leases can tell apart")
	end
	call("HSET", KEYS[5], worker, number .. " " .. request)
	call("ZADD", KEYS[8], "NX", now[1] * 1000 + math.floor(now[2] / 1000), worker) -- who has a number is missed when he falls silent
end
reply[8] = number

-- What was asked for with no answer, and now finds nothing, finds nothing later either: nobody would know of it.
if ARGV[10] == "1" then
	call("HSET", KEYS[5], worker, number .. " " .. request)
end
if paused then
	reply[4] = 1
	return reply
elseif length == 0 then
	return reply
end

-- A worker is judged by its beats. A fetch counts as one only if there is no job that they speak for: who stands still takes nothing.
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local beat = ARGV[7] ~= "1" and tonumber(call("ZSCORE", KEYS[8], worker) or nil)
if not beat then
	call("ZADD", KEYS[8], now_ms, worker)
elseif now_ms - beat > 10000 then
	reply[4] = 2
	return reply
end

local held_back, room = false, ARGV[8] == "1"
if ARGV[11] ~= "0" then
	held_back = {}
	for i = 12, 11 + tonumber(ARGV[11]) do
		held_back[ARGV[i]] = true
	end
end

-- Look at some more than are wanted, not at all of them: a call must not hold Redis for long.
local ids, held = {}, {}
local leases = {0, "{" .. string.rep("\0", 64)} -- no job's id
local lease = string.format("%.17g", now[1] + ARGV[6] + (number * fetch_marks + ARGV[4]) / marks)
local n, looks, at = 0, want + 1000, head
while n < want and looks > 0 do
	local some = call("RPOP", KEYS[1], math.min(want - n, looks))
	if not some or #some == 0 then
		break
	end
	looks = looks - #some
	length = length - #some
	for _, id in ipairs(some) do
		if held_back and held_back[id] or suspected and not room and call("HEXISTS", prefix .. id, "bellhop_suspect") == 1 then
			held[#held + 1] = id
		else
			local key = prefix .. id
			local msg = pcall("HGET", key, "msg")
			if type(msg) == "string" then
				n = n + 1
				if suspected and room and call("HEXISTS", key, "bellhop_suspect") == 1 then
					reply[7] = n
					room = false
				end
				call("HSET", key, "state", "active")
				ids[n] = id
				leases[2 * n + 1] = lease
				leases[2 * n + 2] = id
				reply[at + 1] = id
				reply[at + 2] = msg
				at = at + 2
			else
				reply[5] = reply[5] + 1
			end
		end
	end
end
if #held > 0 then
	call("LPUSH", KEYS[1], unpack(held))
	reply[6] = #held
	length = length + #held
end

if n > 0 then
	call("HSET", KEYS[5], worker, number .. " " .. request)
	-- Redis writes a small zset as one text, reads all of it for each new member, and is slow to read fractions. A member of more than
	-- 64 bytes makes it a skip list, and it stays one.
	if call("LPUSH", KEYS[2], unpack(ids)) > 4 then
		call("ZADD", KEYS[3], unpack(leases))
		call("ZREM", KEYS[3], leases[2])
	else
		call("ZADD", KEYS[3], unpack(leases, 3))
	end
end

reply[3] = length
return reply
