#!lua flags=allow-oom
-- Ends attempts that are simply done, as most are: jobs without a lock or a result are deleted. finish.lua ends the others. Nothing is changed
-- for a job that the worker does not own, or that it has fetched again since. A resent request gets the first answer.
--
-- KEYS[1] asynq:{q}:active
-- KEYS[2] asynq:{q}:lease
-- KEYS[3] asynq:{q}:processed
-- KEYS[4] bellhop:{q}:marks
-- KEYS[5] bellhop:{q}:calls
-- KEYS[6] bellhop:{q}:awaited
-- ARGV[1] prefix of the jobs' hashes, asynq:{q}:t:
-- ARGV[2] worker
-- ARGV[3] session: new for each process
-- ARGV[4] the request's number in the session, the same when it is sent again
-- then, for the jobs that one fetch has taken: mark, how many they are, their ids; then the same for the next fetch
--
-- Returns "" if all ends were written; else a string with a "1" for each that was, a "0" for each job that the worker does not own.

local call = redis.call
local now_s = tonumber(call("TIME")[1])
local prefix, worker, session, request = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local field = worker .. ":done"
local known = call("HMGET", KEYS[5], field, "awaited")
if known[1] then
	local last_session, last, answer = string.match(known[1], "^(%S+) (%d+) (.*)$")
	if last_session == session then
		if last == request then
			return answer
		elseif tonumber(last) > tonumber(request) then
			-- A copy of an earlier request that was long on its way: it must not take the place of the last answer.
			return redis.error_reply("STALE a later request was answered")
		end
	end
end

local number = tonumber(string.match(call("HGET", KEYS[4], worker) or "", "^%d+") or nil)
local ids, claims, n, i, last = {}, {}, 0, 5, #ARGV
while i < last do
	local mark, to = tonumber(ARGV[i]), i + 1 + ARGV[i + 1]
	if math.floor(mark / fetch_marks) ~= number then
		mark = false
	end
	for at = i + 2, to do
		n = n + 1
		ids[n], claims[n] = ARGV[at], mark
	end
	i = to + 1
end

local leases = number and call("ZMSCORE", KEYS[2], unpack(ids)) or {}
local mark_of, left, deleted, gone, ended = {}, {}, {}, {}, 0
for at = 1, n do
	local id, lease = ids[at], leases[at]
	if lease then
		local mark = mark_of[lease] -- few leases differ
		if not mark then
			mark = (tonumber(lease) % 1) * marks
			mark_of[lease] = mark
		end
		if mark == claims[at] and not gone[id] then
			ended = ended + 1
			left[ended], deleted[ended] = id, prefix .. id
			gone[id] = true
		end
	end
end

local answer = ""
if ended < n then
	local answers, told = {}, {}
	for at, id in ipairs(ids) do
		answers[at] = gone[id] and not told[id] and "1" or "0"
		told[id] = true
	end
	answer = table.concat(answers)
end

if ended > 0 then
	call("ZREM", KEYS[2], unpack(left))
	leave_active(KEYS[1], left, gone)
	if known[2] and tonumber(known[2]) >= now_s then
		teller()(KEYS[6], prefix, left, function() return "completed" end, function() end)
	end
	call("DEL", unpack(deleted))
	count(KEYS[3], ended, now_s)
end
call("HSET", KEYS[5], field, session .. " " .. request .. " " .. answer)
return answer
