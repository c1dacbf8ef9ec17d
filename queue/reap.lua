#!lua flags=allow-oom
-- Gives the jobs of a dead worker back to the head of pending, in their order. No retry is spent. Nothing happens if the worker
-- has beaten since its beat was seen.
--
-- A crash is counted apart, in the job. One more would quarantine a suspect, so a process holds one suspect at most. If there was
-- one, the crash is its own: the jobs beside it stay as they were. If there was none, it is counted in all that ran. A job that
-- has as many crashes as it may, the last of them its own, is quarantined: archived, with the reason.
--
-- KEYS[1]  asynq:{q}:pending
-- KEYS[2]  asynq:{q}:active
-- KEYS[3]  asynq:{q}:lease
-- KEYS[4]  bellhop:{q}:marks
-- KEYS[5]  bellhop:{q}:beats
-- KEYS[6]  bellhop:{q}:calls
-- KEYS[7]  bellhop:{q}:keeper
-- KEYS[8]  bellhop:{q}:watch
-- KEYS[9]  bellhop:{q}:watcher
-- KEYS[10] bellhop:{q}:suspects
-- KEYS[11] asynq:{q}:archived
-- KEYS[12] asynq:{q}:processed
-- KEYS[13] asynq:{q}:failed
-- KEYS[14] bellhop:{q}:awaited
-- ARGV[1] prefix of the jobs' hashes, asynq:{q}:t:
-- ARGV[2] the dead worker
-- ARGV[3] its last beat, as the caller saw it (Unix ms)
-- ARGV[4] the most jobs to give back
-- ARGV[5] the crashes that quarantine a job; 0: the worker has not crashed, but stands still: nothing is counted
-- ARGV[6] the jobs that the worker held in all its queues before any of them was reaped
-- ARGV[7] how many of them were suspects
--
-- Returns 1 if the worker was reaped, 0 if it has beaten since, 2 if it has left or was reaped before; the jobs that it still owns; then three for each job taken from
-- it: id, crashes so far, 1 if it was quarantined.

local dead, limit, most = ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5])
local beat = redis.call("ZSCORE", KEYS[5], dead)
if not beat then
	return {2, 0}
end
if tonumber(beat) ~= tonumber(ARGV[3]) then
	return {0, 0}
end
local now = redis.call("TIME")
local now_s = tonumber(now[1])
local now_ns = now[1] .. string.format("%06d", now[2]) .. "000"

-- Its jobs, the newest first: the oldest comes to stand at the very head of pending. A suspect comes last, so that the next call of many
-- still sees it.
local jobs, suspects = {}, 0
local function add(id)
	local known = redis.call("HMGET", ARGV[1] .. id, "bellhop_crashes", "bellhop_suspect")
	local rank = known[2] and 1 or 0
	suspects = suspects + rank
	jobs[#jobs + 1] = {id = id, at = #jobs, crashes = tonumber(known[1] or 0), rank = rank}
end
local number = number_of(redis.call("HGET", KEYS[4], dead))
local mine = {}
local all = number and redis.call("ZRANGE", KEYS[3], 0, -1, "WITHSCORES") or {}
for i = 1, #all, 2 do
	if math.floor(mark_of(all[i + 1]) / fetch_marks) == number then
		mine[all[i]] = true
	end
end
if next(mine) then
	for _, id in ipairs(redis.call("LRANGE", KEYS[2], 0, -1)) do
		if mine[id] then
			add(id)
			mine[id] = nil
		end
	end
	for id in pairs(mine) do -- in no list, which nothing of ours leaves behind
		add(id)
	end
end
suspects = math.max(suspects, tonumber(ARGV[7]))
local alone = suspects == 1 or math.max(#jobs, tonumber(ARGV[6])) == 1
table.sort(jobs, function(a, b)
	if a.rank ~= b.rank then
		return a.rank < b.rank
	end
	return a.at < b.at
end)

local function quarantine(job, key)
	local reason = string.format("quarantined: its process died %d times while it ran; mend the handler, then run it again", job.crashes)
	local msg = redis.call("HGET", key, "msg") or "" -- what is appended to a message replaces what stands in it
	redis.call("HSET", key, "msg", msg .. string.char(0x3a) .. varint(#reason) .. reason .. string.char(0x58) .. varint(now_s),
		"state", "archived", "bellhop_end", "quarantined")
	redis.call("HDEL", key, "pending_since", "bellhop_crashes", "bellhop_suspect")
	redis.call("ZADD", KEYS[11], now_s, job.id)
	teller()(KEYS[14], ARGV[1], {job.id}, function() return "dead" end, function() end)
	local unique = redis.call("HGET", key, "unique_key")
	if unique and redis.pcall("GET", unique) == job.id then
		redis.call("DEL", unique)
	end
	count(KEYS[12], 1, now_s)
	count(KEYS[13], 1, now_s)
end

local reply = {1, math.max(#jobs - limit, 0)}
for n = 1, math.min(#jobs, limit) do
	local job = jobs[n]
	local key = ARGV[1] .. job.id
	redis.call("ZREM", KEYS[3], job.id)
	redis.call("LREM", KEYS[2], 1, job.id)
	if redis.call("EXISTS", key) == 1 then
		if most > 0 and (suspects == 0 or job.rank == 1) then
			job.crashes = redis.call("HINCRBY", key, "bellhop_crashes", 1)
			if job.crashes >= most - 1 then
				redis.call("HSET", key, "bellhop_suspect", "1")
				redis.call("SET", KEYS[10], "1", "EX", 86400)
			end
		end
		local over = most > 0 and alone and job.crashes >= most
		if over then
			quarantine(job, key)
		else
			redis.call("HSET", key, "state", "pending", "pending_since", now_ns)
			redis.call("RPUSH", KEYS[1], job.id)
		end
		reply[#reply + 1] = job.id
		reply[#reply + 1] = job.crashes
		reply[#reply + 1] = over and 1 or 0
	end
end

if reply[2] == 0 then
	redis.call("ZREM", KEYS[5], dead)
	redis.call("HDEL", KEYS[4], dead)
	redis.call("HDEL", KEYS[6], dead .. ":finish", dead .. ":done")
end
-- Its duties are free at once.
if redis.call("GET", KEYS[7]) == dead then
	redis.call("DEL", KEYS[7])
end
if redis.call("GET", KEYS[9]) == dead then
	redis.call("DEL", KEYS[9])
	redis.call("LPUSH", KEYS[8], "1")
	redis.call("LTRIM", KEYS[8], 0, 0)
end
return reply
