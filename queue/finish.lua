#!lua flags=allow-oom
-- Ends attempts: completed, retry, snooze, archived, handed back, set aside. What is simply done, with nothing to unlock or to keep, is ended
-- by done.lua. Nothing is changed for a job that the worker does not own, or that it has fetched again since. A resent request gets the first
-- answer.
--
-- KEYS[1]  asynq:{q}:pending
-- KEYS[2]  asynq:{q}:active
-- KEYS[3]  asynq:{q}:lease
-- KEYS[4]  asynq:{q}:retry
-- KEYS[5]  asynq:{q}:archived
-- KEYS[6]  asynq:{q}:completed
-- KEYS[7]  asynq:{q}:processed
-- KEYS[8]  asynq:{q}:failed
-- KEYS[9]  bellhop:{q}:marks
-- KEYS[10] bellhop:{q}:calls
-- KEYS[11] bellhop:{q}:due
-- KEYS[12] bellhop:{q}:alarm
-- KEYS[13] bellhop:{q}:undecodable
-- KEYS[14] bellhop:{q}:awaited
-- ARGV[1]  prefix of the jobs' hashes, asynq:{q}:t:
-- ARGV[2]  worker
-- ARGV[3]  request: new for each request, the same when it is sent again
-- then for each job, those to be handed back with the highest attempt first: what, id, mark, its unique lock ("" = none), and
--   done:     nothing more                      the job is deleted
--   told:     result                            the same; the result goes to those who await the job, nowhere else
--   complete: message, retention (s), result    kept until the retention is over
--   retry:    message, delay (ms), result       a failure, counted
--   again:    message, delay (ms), result       the same, not counted
--   snooze:   delay (ms)                        later, the message as it was
--   archive:  message, result                   dead, a failure
--   cancel:   message, result                   the same, marked as cancelled
--   back:     nothing more                      to the head of pending, where it came from
--   aside:    nothing more                      out of asynq's lists, kept for inspection
--   result:   result                            writes it; the attempt goes on
-- A result is written if it begins with "=", which is cut off; "" leaves what is there. The message of complete comes without
-- CompletedAt, those of retry, again, archive and cancel without LastFailedAt: the script adds Redis' time. Who comes to an end in its
-- handler has survived it: the crashes counted so far are forgiven.
--
-- Returns a string with a "1" for each job whose end was written, a "0" for each that the worker does not own.

local now = redis.call("TIME")
local now_s = tonumber(now[1])
local now_ms = now_s * 1000 + math.floor(now[2] / 1000)

local field = ARGV[2] .. ":finish"
local known = redis.call("HMGET", KEYS[10], field, "awaited")
local last, awaited = known[1], known[2] and tonumber(known[2]) >= now_s
if last and string.sub(last, 1, #ARGV[3] + 1) == ARGV[3] .. " " then
	return string.sub(last, #ARGV[3] + 2)
end

-- A copy of an earlier request that was long on its way: it must not take the place of the last answer.
if last then
	local session, number = string.match(ARGV[3], "^(.*)e(%d+)$")
	local last_session, last_number = string.match(last, "^(%S*)e(%d+) ")
	if session and session == last_session and tonumber(number) < tonumber(last_number) then
		return redis.error_reply("STALE a later request was answered")
	end
end

local extra = {done = 0, told = 1, complete = 3, retry = 3, again = 3, snooze = 1, archive = 2, cancel = 2, back = 0, aside = 0, result = 1}
local jobs, ids = {}, {}
local i = 4
while i <= #ARGV do
	local values = extra[ARGV[i]]
	if not values then
		return redis.error_reply("ERR no such end of an attempt: " .. ARGV[i])
	end
	jobs[#jobs + 1] = {what = ARGV[i], id = ARGV[i + 1], mark = tonumber(ARGV[i + 2]), unique = ARGV[i + 3], at = i + 4}
	ids[#ids + 1] = ARGV[i + 1]
	i = i + 4 + values
end

local completed_at, last_failed_at = string.char(0x68) .. varint(now_s), string.char(0x58) .. varint(now_s)

local deleted, handed, gone, left, ended = {}, {}, {}, {}, {}
local processed, failed, archived = 0, 0, 0

local function unlock(job)
	if job.unique ~= "" and redis.pcall("GET", job.unique) == job.id then
		redis.call("DEL", job.unique)
	end
end

local function write_result(key, result)
	if string.sub(result, 1, 1) == "=" then
		redis.call("HSET", key, "result", string.sub(result, 2))
	end
end

local function later(job, delay)
	local due = now_ms + delay
	redis.call("ZADD", KEYS[4], math.ceil(due / 1000), job.id)
	redis.call("ZADD", KEYS[11], due, job.id)
	forgive(ARGV[1] .. job.id)
	if redis.call("ZRANGE", KEYS[11], 0, 0)[1] == job.id then
		redis.call("LPUSH", KEYS[12], "1")
		redis.call("LTRIM", KEYS[12], 0, 0)
	end
end

local function write(job, key)
	local what, at = job.what, job.at
	if what == "done" or what == "told" then
		processed = processed + 1
		deleted[#deleted + 1] = key
		unlock(job)
	elseif what == "complete" then
		processed = processed + 1
		redis.call("ZADD", KEYS[6], now_s + ARGV[at + 1], job.id)
		redis.call("HSET", key, "msg", ARGV[at] .. completed_at, "state", "completed")
		forgive(key)
		write_result(key, ARGV[at + 2])
		unlock(job)
	elseif what == "retry" or what == "again" then
		if what == "retry" then
			processed = processed + 1
			failed = failed + 1
		end
		later(job, ARGV[at + 1])
		redis.call("HSET", key, "msg", ARGV[at] .. last_failed_at, "state", "retry")
		write_result(key, ARGV[at + 2])
	elseif what == "snooze" then
		later(job, ARGV[at])
		redis.call("HSET", key, "state", "retry")
	elseif what == "archive" or what == "cancel" then
		processed = processed + 1
		failed = failed + 1
		archived = archived + 1
		redis.call("ZADD", KEYS[5], now_s, job.id)
		redis.call("HSET", key, "msg", ARGV[at] .. last_failed_at, "state", "archived")
		forgive(key)
		if what == "cancel" then
			redis.call("HSET", key, "bellhop_end", "cancelled")
		end
		write_result(key, ARGV[at + 1])
		unlock(job)
	elseif what == "back" then
		redis.call("HSET", key, "state", "pending")
		handed[#handed + 1] = job.id
	elseif what == "aside" then
		redis.call("ZADD", KEYS[13], now_s, job.id)
		redis.call("HSET", key, "state", "undecodable")
		redis.call("HDEL", key, "pending_since")
	end
end

-- What those who await a job are told.
local word_of = {done = "completed", told = "completed", complete = "completed", archive = "dead", cancel = "dead", aside = "dead"}

local answers = {}
if #ids > 0 then
	local number = number_of(redis.call("HGET", KEYS[9], ARGV[2]))
	local leases = number and redis.call("ZMSCORE", KEYS[3], unpack(ids)) or {}
	for n, job in ipairs(jobs) do
		local lease = leases[n]
		local owned = lease and mark_of(lease) == job.mark and math.floor(job.mark / fetch_marks) == number and not gone[job.id]
		if not owned then
			answers[n] = "0"
		elseif job.what == "result" then
			write_result(ARGV[1] .. job.id, ARGV[job.at])
			answers[n] = "1"
		else
			write(job, ARGV[1] .. job.id)
			gone[job.id] = true
			left[#left + 1] = job.id
			if awaited and word_of[job.what] then
				ended[#ended + 1] = job
			end
			answers[n] = "1"
		end
	end
end

if #left > 0 then
	redis.call("ZREM", KEYS[3], unpack(left))
	leave_active(KEYS[2], left, gone)
end
if #ended > 0 then
	local some = {}
	for n, job in ipairs(ended) do
		some[n] = job.id
	end
	teller()(KEYS[14], ARGV[1], some, function(n)
		return word_of[ended[n].what]
	end, function(n)
		return ended[n].what == "told" and ARGV[ended[n].at]
	end)
end
if #deleted > 0 then
	redis.call("DEL", unpack(deleted))
end
if #handed > 0 then
	redis.call("RPUSH", KEYS[1], unpack(handed))
end

if processed > 0 then
	count(KEYS[7], processed, now_s)
	if failed > 0 then
		count(KEYS[8], failed, now_s)
	end
end

-- asynq's limits: 90 days, and fewer than 10,000. A call removes 1,000 at most; the keeper removes the rest.
local function trim(old)
	for _, id in ipairs(old) do
		local key = ARGV[1] .. id
		local unique = redis.call("HGET", key, "unique_key")
		if unique and redis.pcall("GET", unique) == id then
			redis.call("DEL", unique)
		end
		redis.call("DEL", key)
	end
	if #old > 0 then
		redis.call("ZREM", KEYS[5], unpack(old))
	end
end

if archived > 0 then
	trim(redis.call("ZRANGEBYSCORE", KEYS[5], "-inf", now_s - 90 * 86400, "LIMIT", 0, 1000))
	local over = redis.call("ZCARD", KEYS[5]) - 9999
	if over > 0 then
		trim(redis.call("ZRANGE", KEYS[5], 0, math.min(over, 1000) - 1))
	end
end

local answer = table.concat(answers)
redis.call("HSET", KEYS[10], field, ARGV[3] .. " " .. answer)
return answer
