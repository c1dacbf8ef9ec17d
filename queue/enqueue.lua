-- Stores jobs of one queue: pending, scheduled or waiting in a group. A job is stored whole or not at all.
--
-- KEYS[1] asynq:{q}:pending
-- KEYS[2] asynq:{q}:scheduled
-- KEYS[3] asynq:{q}:groups
-- KEYS[4] bellhop:{q}:fired
-- KEYS[5] bellhop:{q}:due
-- KEYS[6] bellhop:{q}:alarm
-- KEYS[7] bellhop:{q}:sent:<sender>, the sender's last request and its answers
-- ARGV[1] prefix of the jobs' hashes, asynq:{q}:t:
-- ARGV[2] prefix of the groups' zsets, asynq:{q}:g:
-- ARGV[3] request: new for each request, the same when it is sent again
-- then eight for each job:
--   id, message, start (Unix ms, 0 = now, "+n" = n ms from now), unique key ("" = none), its ttl (ms), group ("" = none),
--   fired pair ("" = none), its score
--
-- Returns two values for each job: what became of it and, for a scheduled one, its start (Unix ms); for a duplicate, the id of the job that
-- was there first.
--   "pending" | "scheduled" | "aggregating" | "id" (the id is taken) | "unique" (the lock is held) | "fired" (the pair has fired)

local now = redis.call("TIME")
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local now_ns = now[1] .. string.format("%06d", now[2]) .. "000"

local sent = redis.call("HMGET", KEYS[7], "request", "answers")
if sent[1] == ARGV[3] then
	redis.call("HSET", KEYS[7], "request", ARGV[3]) -- a write, for a WAIT that follows to wait for
	return cjson.decode(sent[2])
end

-- A copy of an earlier request that was long on its way. Its jobs may have run by now, and nobody waits for its answer.
if sent[1] and tonumber(sent[1]) > tonumber(ARGV[3]) then
	return redis.error_reply("STALE a later request was answered")
end

local function store(id, msg, start, unique, ttl, group, fired, fired_score)
	-- A match is settled once, also where the answer is a duplicate: redelivered after the lock has gone, it must not come to run then.
	if fired ~= "" and redis.call("ZADD", KEYS[4], "NX", fired_score, fired) == 0 then
		return "fired", id
	end
	local key = ARGV[1] .. id
	if redis.call("EXISTS", key) == 1 then
		return "id", id
	end
	if unique ~= "" and not redis.call("SET", unique, id, "NX", "PX", ttl) then
		return "unique", redis.call("GET", unique) or ""
	end

	-- Redis' clock decides, rounded up: never early.
	if string.sub(start, 1, 1) == "+" then
		start = now[1] * 1000 + math.ceil(now[2] / 1000) + tonumber(string.sub(start, 2))
	else
		start = tonumber(start)
	end
	local state, told = "pending", ""
	if start > now_ms then
		state, told = "scheduled", string.format("%.0f", start)
		redis.call("HSET", key, "msg", msg, "state", state)
		redis.call("ZADD", KEYS[2], math.ceil(start / 1000), id)
		redis.call("ZADD", KEYS[5], start, id)
		if redis.call("ZRANGE", KEYS[5], 0, 0)[1] == id then
			redis.call("LPUSH", KEYS[6], "1")
			redis.call("LTRIM", KEYS[6], 0, 0)
		end
	elseif group ~= "" then
		state = "aggregating"
		redis.call("HSET", key, "msg", msg, "state", state, "group", group)
		redis.call("ZADD", ARGV[2] .. group, now[1], id)
		redis.call("SADD", KEYS[3], group)
	else
		redis.call("HSET", key, "msg", msg, "state", state, "pending_since", now_ns)
		redis.call("LPUSH", KEYS[1], id)
	end
	if unique ~= "" then
		redis.call("HSET", key, "unique_key", unique)
	end
	return state, told
end

local answers = {}
for i = 4, #ARGV, 8 do
	local state, holder = store(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6], ARGV[i + 7])
	answers[#answers + 1] = state
	answers[#answers + 1] = holder
end
redis.call("HSET", KEYS[7], "request", ARGV[3], "answers", cjson.encode(answers))
redis.call("EXPIRE", KEYS[7], 600)
return answers
