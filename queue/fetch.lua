#!lua flags=allow-oom
-- Takes jobs from pending to active, the oldest first, and writes who owns them. Ids without a body are dropped and counted.
-- Ids that the caller holds back go to the end of the line. pending_since stays until the job leaves active: taking it out costs
-- as much as the rest of the job's fetch, and nobody reads it meanwhile. A resent request gets the jobs of the first one that are still its own.
-- Suspects, jobs that one more crash would quarantine, are taken one at a time: the others go to the end of the line too.
--
-- KEYS[1] asynq:{q}:pending
-- KEYS[2] asynq:{q}:active
-- KEYS[3] asynq:{q}:lease
-- KEYS[4] asynq:{q}:paused
-- KEYS[5] bellhop:{q}:owners
-- KEYS[6] bellhop:{q}:attempts
-- KEYS[7] bellhop:{q}:calls
-- KEYS[8] bellhop:{q}:watch
-- KEYS[9] bellhop:{q}:watcher
-- KEYS[10] bellhop:{q}:beats
-- KEYS[11] bellhop:{q}:suspects
-- ARGV[1] prefix of the jobs' hashes, asynq:{q}:t:
-- ARGV[2] worker
-- ARGV[3] request: new for each request, the same when it is sent again
-- ARGV[4] the most jobs to take
-- ARGV[5] lease in seconds
-- ARGV[6] 1 if the worker holds no job of the queue
-- ARGV[7] 1 if the worker's process holds no suspect
-- ARGV[8] how many of the following ids are held back, then those ids
--
-- Returns the seconds and microseconds of Redis' clock, the jobs left in pending, 0 | 1 if the queue is paused | 2 if the worker
-- must beat first, the ids dropped, the ids held back, the place (from 1) of the suspect among the jobs or 0, the attempt of the first
-- job or 0, then two for each job: id, message. The attempts follow each other; of a job of an earlier answer that is no longer the
-- worker's, there is no message.
--
-- Most of a call's time is spent between Lua and Redis, so a number that many arguments share is made a string once, and what is
-- usually not there is asked for by one command.

local call, pcall = redis.call, redis.pcall
local now = call("TIME")
local prefix, worker, request, want = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local reply = {tonumber(now[1]), tonumber(now[2]), 0, 0, 0, 0, 0, 0}
local head = #reply
local paused, suspected = false, false
if call("EXISTS", KEYS[4], KEYS[11]) > 0 then
	paused, suspected = call("EXISTS", KEYS[4]) == 1, call("EXISTS", KEYS[11]) == 1
end

-- Whoever fetches hands the watch on: the next idle worker looks while this one works.
if call("GET", KEYS[9]) == worker then
	call("DEL", KEYS[9])
	if call("LPUSH", KEYS[8], "1") > 1 then
		call("LTRIM", KEYS[8], 0, 0)
	end
end

local length = call("LLEN", KEYS[1])
reply[3] = length

-- Attempts of one request follow each other, so the first one and their number name them all.
local field = worker .. ":fetch"
local last = call("HGET", KEYS[7], field)
if last then
	local asked, first, count = string.match(last, "^(%S+) (%d+) (%d+)$")
	-- A copy of an earlier request that was long on its way: what it took, nobody would know of.
	local session, number = string.match(request, "^(.*)f(%d+)$")
	local last_session, last_number = string.match(asked, "^(.*)f(%d+)$")
	if session and session == last_session and tonumber(number) < tonumber(last_number) then
		return redis.error_reply("STALE a later request was answered")
	end
	if asked == request then
		local from, to = tonumber(first), first + count - 1
		local owned = call("HGETALL", KEYS[5])
		local mine = {}
		for i = 1, #owned, 2 do
			local who, attempt = string.match(owned[i + 1], "^(.*):(%d+)$")
			attempt = tonumber(attempt)
			if who == worker and attempt >= from and attempt <= to then
				mine[attempt] = owned[i]
			end
		end
		reply[8] = from
		for attempt = from, to do
			local id, msg = mine[attempt], false
			if id then
				if suspected and call("HEXISTS", prefix .. id, "bellhop_suspect") == 1 then
					reply[7] = attempt - from + 1
				end
				msg = call("HGET", prefix .. id, "msg") or ""
			end
			reply[#reply + 1] = id or ""
			reply[#reply + 1] = msg
		end
		return reply
	end
end

if paused then
	reply[4] = 1
	return reply
elseif length == 0 then
	return reply
end

-- The leases that a worker has written end no later than its last beat plus the lease time, and finish.lua relies on it to
-- see that a stock worker took a job. So a fetch counts as a beat only if there is no job to protect.
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local beat = ARGV[6] ~= "1" and tonumber(call("ZSCORE", KEYS[10], worker) or nil)
if not beat then
	beat = now_ms
	call("ZADD", KEYS[10], beat, worker)
elseif now_ms - beat > 10000 then
	reply[4] = 2
	return reply
end

local held_back = {}
for i = 9, 8 + tonumber(ARGV[8]) do
	held_back[ARGV[i]] = true
end
local choosy = suspected or tonumber(ARGV[8]) > 0
local room = ARGV[7] == "1"
local function must_wait(id)
	if held_back[id] then
		return true
	end
	return suspected and not room and call("HEXISTS", prefix .. id, "bellhop_suspect") == 1
end

-- Look at some more than are wanted, not at all of them: a call must not hold Redis for long.
local ids, held, leases, owners = {}, {}, {}, {}
local lease = string.format("%d", math.floor(beat / 1000) + ARGV[5])
local n, looks, at = 0, want + 1000, head
while n < want and looks > 0 do
	local some = call("RPOP", KEYS[1], math.min(want - n, looks))
	if not some or #some == 0 then
		break
	end
	looks = looks - #some
	length = length - #some
	for _, id in ipairs(some) do
		if choosy and must_wait(id) then
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
				leases[2 * n - 1] = lease
				leases[2 * n] = id
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
	local first = call("INCRBY", KEYS[6], n) - n + 1
	reply[8] = first
	call("HSET", KEYS[7], field, string.format("%s %d %d", request, first, n))
	local owner = worker .. ":"
	for i = 1, n do
		owners[2 * i - 1] = ids[i]
		owners[2 * i] = owner .. (first + i - 1)
	end
	call("LPUSH", KEYS[2], unpack(ids))
	call("ZADD", KEYS[3], unpack(leases))
	call("HSET", KEYS[5], unpack(owners))
end

reply[3] = length
return reply
