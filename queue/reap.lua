#!lua flags=allow-oom
-- Gives the jobs of a dead worker back to the head of pending, in their order. No retry is spent; the crash is counted in the
-- job. Nothing happens if the worker has beaten since its beat was seen.
--
-- KEYS[1] asynq:{q}:pending
-- KEYS[2] asynq:{q}:active
-- KEYS[3] asynq:{q}:lease
-- KEYS[4] bellhop:{q}:owners
-- KEYS[5] bellhop:{q}:beats
-- KEYS[6] bellhop:{q}:calls
-- KEYS[7] bellhop:{q}:keeper
-- KEYS[8] bellhop:{q}:watch
-- KEYS[9] bellhop:{q}:watcher
-- ARGV[1] prefix of the jobs' hashes, asynq:{q}:t:
-- ARGV[2] the dead worker
-- ARGV[3] its last beat, as the caller saw it (Unix ms)
-- ARGV[4] lease in seconds
-- ARGV[5] the most jobs to give back
--
-- Returns 1 if the worker was reaped, 0 if it has beaten since; the jobs that it still owns; then three for each job given
-- back: id, attempt, crashes so far.

local dead, limit = ARGV[2], tonumber(ARGV[5])
local beat = redis.call("ZSCORE", KEYS[5], dead)
if not beat or tonumber(beat) ~= tonumber(ARGV[3]) then
	return {0, 0}
end
local now = redis.call("TIME")
local now_ns = now[1] .. string.format("%06d", now[2]) .. "000"
local latest = math.floor(beat / 1000) + ARGV[4]

local owned = redis.call("HGETALL", KEYS[4])
local jobs = {}
for i = 1, #owned, 2 do
	local who, attempt = string.match(owned[i + 1], "^(.*):(%d+)$")
	if who == dead then
		jobs[#jobs + 1] = {owned[i], tonumber(attempt)}
	end
end
-- The newest first: the oldest comes to stand at the very head.
table.sort(jobs, function(a, b) return a[2] > b[2] end)

local reply = {1, math.max(#jobs - limit, 0)}
for n = 1, math.min(#jobs, limit) do
	local id, attempt = jobs[n][1], jobs[n][2]
	local key = ARGV[1] .. id
	local lease = redis.call("ZSCORE", KEYS[3], id)
	redis.call("HDEL", KEYS[4], id)
	-- A later lease was written by a stock worker that took the job since then.
	if lease and tonumber(lease) <= latest then
		redis.call("ZREM", KEYS[3], id)
		redis.call("LREM", KEYS[2], 1, id)
		if redis.call("EXISTS", key) == 1 then
			redis.call("HSET", key, "state", "pending", "pending_since", now_ns)
			redis.call("RPUSH", KEYS[1], id)
			reply[#reply + 1] = id
			reply[#reply + 1] = attempt
			reply[#reply + 1] = redis.call("HINCRBY", key, "bellhop_crashes", 1)
		end
	end
end

if reply[2] == 0 then
	redis.call("ZREM", KEYS[5], dead)
	redis.call("HDEL", KEYS[6], dead .. ":fetch", dead .. ":finish")
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
