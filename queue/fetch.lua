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
-- must beat first, the ids dropped, the ids held back, the place (from 1) of the suspect among the jobs or 0, then three for
-- each job: id, attempt, message.

local now = redis.call("TIME")
local worker, request, want = ARGV[2], ARGV[3], tonumber(ARGV[4])
local reply = {tonumber(now[1]), tonumber(now[2]), 0, 0, 0, 0, 0}
local suspected = redis.call("EXISTS", KEYS[11]) == 1

-- Whoever fetches hands the watch on: the next idle worker looks while this one works.
if redis.call("GET", KEYS[9]) == worker then
	redis.call("DEL", KEYS[9])
	redis.call("LPUSH", KEYS[8], "1")
	redis.call("LTRIM", KEYS[8], 0, 0)
end

-- Attempts of one request follow each other, so the first one and their number name them all.
local field = worker .. ":fetch"
local last = redis.call("HGET", KEYS[7], field)
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
		local owned = redis.call("HGETALL", KEYS[5])
		local mine = {}
		for i = 1, #owned, 2 do
			local who, attempt = string.match(owned[i + 1], "^(.*):(%d+)$")
			attempt = tonumber(attempt)
			if who == worker and attempt >= from and attempt <= to then
				mine[#mine + 1] = {owned[i], attempt}
			end
		end
		table.sort(mine, function(a, b) return a[2] < b[2] end)
		for i, job in ipairs(mine) do
			if suspected and redis.call("HEXISTS", ARGV[1] .. job[1], "bellhop_suspect") == 1 then
				reply[7] = i
			end
			reply[#reply + 1] = job[1]
			reply[#reply + 1] = job[2]
			reply[#reply + 1] = redis.call("HGET", ARGV[1] .. job[1], "msg") or ""
		end
		reply[3] = redis.call("LLEN", KEYS[1])
		return reply
	end
end

if redis.call("EXISTS", KEYS[4]) == 1 then
	reply[3] = redis.call("LLEN", KEYS[1])
	reply[4] = 1
	return reply
end

-- The leases that a worker has written end no later than its last beat plus the lease time, and finish.lua relies on it to
-- see that a stock worker took a job. So a fetch counts as a beat only if there is no job to protect.
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local beat = tonumber(redis.call("ZSCORE", KEYS[10], worker) or nil)
if not beat or ARGV[6] == "1" then
	beat = now_ms
	redis.call("ZADD", KEYS[10], beat, worker)
elseif now_ms - beat > 10000 then
	reply[3] = redis.call("LLEN", KEYS[1])
	reply[4] = 2
	return reply
end

local held_back = {}
for i = 9, 8 + tonumber(ARGV[8]) do
	held_back[ARGV[i]] = true
end
local room = ARGV[7] == "1"
local function must_wait(id)
	if held_back[id] then
		return true
	end
	return suspected and not room and redis.call("HEXISTS", ARGV[1] .. id, "bellhop_suspect") == 1
end

-- Look at some more than are wanted, not at all of them: a call must not hold Redis for long.
local ids, msgs, held = {}, {}, {}
local looks = want + 1000
while #ids < want and looks > 0 do
	local some = redis.call("RPOP", KEYS[1], math.min(want - #ids, looks))
	if not some or #some == 0 then
		break
	end
	looks = looks - #some
	for _, id in ipairs(some) do
		if must_wait(id) then
			held[#held + 1] = id
		else
			local msg = redis.pcall("HGET", ARGV[1] .. id, "msg")
			if type(msg) == "string" then
				ids[#ids + 1] = id
				msgs[#msgs + 1] = msg
				if suspected and room and redis.call("HEXISTS", ARGV[1] .. id, "bellhop_suspect") == 1 then
					reply[7] = #ids
					room = false
				end
			else
				reply[5] = reply[5] + 1
			end
		end
	end
end
if #held > 0 then
	redis.call("LPUSH", KEYS[1], unpack(held))
	reply[6] = #held
end

if #ids > 0 then
	local attempt = redis.call("INCRBY", KEYS[6], #ids) - #ids
	local lease = math.floor(beat / 1000) + ARGV[5]
	local leases, owners = {}, {}
	redis.call("HSET", KEYS[7], field, string.format("%s %d %d", request, attempt + 1, #ids))
	for i, id in ipairs(ids) do
		redis.call("HSET", ARGV[1] .. id, "state", "active")
		leases[2 * i - 1] = lease
		leases[2 * i] = id
		owners[2 * i - 1] = id
		owners[2 * i] = string.format("%s:%d", worker, attempt + i)
		reply[#reply + 1] = id
		reply[#reply + 1] = attempt + i
		reply[#reply + 1] = msgs[i]
	end
	redis.call("LPUSH", KEYS[2], unpack(ids))
	redis.call("ZADD", KEYS[3], unpack(leases))
	redis.call("HSET", KEYS[5], unpack(owners))
end

reply[3] = redis.call("LLEN", KEYS[1])
return reply
