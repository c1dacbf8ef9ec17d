-- Stores jobs of one queue: pending, scheduled or waiting in a group. A job is stored whole or not at all.
--
-- KEYS[1] asynq:{q}:pending
-- KEYS[2] asynq:{q}:scheduled
-- KEYS[3] asynq:{q}:groups
-- KEYS[4] bellhop:{q}:fired
-- KEYS[5] bellhop:{q}:due
-- KEYS[6] bellhop:{q}:alarm
-- KEYS[7] bellhop:{q}:sent:<sender>, the sender's last request, a space and its answers in JSON, if there are any
-- ARGV[1] prefix of the jobs' hashes, asynq:{q}:t:
-- ARGV[2] prefix of the groups' zsets, asynq:{q}:g:
-- ARGV[3] request: new for each request, the same when it is sent again
-- ARGV[4] "plain" if all jobs are: to be pending at once, and nothing to be compared with. Then for each its id and message
--   else, for each job: id, message, and "" if it is plain, or "+" and six more:
--   start (Unix ms, 0 = now, "+n" = n ms from now), unique key ("" = none), its ttl (ms), group ("" = none),
--   fired pair ("" = none), its score
--
-- Returns nothing if all jobs are pending, as most are; else two values for each job: what became of it and, for a scheduled one, its start
-- (Unix ms); for a duplicate, the id of the job that was there first.
--   "pending" | "scheduled" | "aggregating" | "id" (the id is taken) | "unique" (the lock is held) | "fired" (the pair has fired)

local call = redis.call
local now = call("TIME")
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local now_ns = now[1] .. string.format("%06d", now[2]) .. "000"

local last = call("GET", KEYS[7])
if last then
	local request, answers = string.match(last, "^(%d+) (.*)$")
	if request == ARGV[3] then
		call("EXPIRE", KEYS[7], 600) -- a write, for a WAIT that follows to wait for
		return answers == "" and {} or cjson.decode(answers)
	end
	-- A copy of an earlier request that was long on its way. Its jobs may have run by now, and nobody waits for its answer.
	if tonumber(request) > tonumber(ARGV[3]) then
		return redis.error_reply("STALE a later request was answered")
	end
end

local function remember(answers)
	call("SET", KEYS[7], ARGV[3] .. " " .. answers, "EX", 600)
end

-- Most batches bring plain jobs with new ids, which takes one command to see.
local argv, count, prefix, all_plain = ARGV, #ARGV, ARGV[1], ARGV[4] == "plain"
local ids, keys, plain, seen, careful = {}, {}, 0, {}, false
local i = 5
while i <= count do
	local id = argv[i]
	careful = careful or seen[id]
	seen[id] = true
	if all_plain or argv[i + 2] == "" then
		plain = plain + 1
		ids[plain], keys[plain] = id, prefix .. id
		i = i + (all_plain and 2 or 3)
	else
		i = i + 9
	end
end
if not careful and plain > 0 then
	careful = call("EXISTS", unpack(keys)) > 0
end

-- Plain jobs whose hash is written, not yet pushed. Nothing else is done before they are: a job is stored whole.
local function push(unpushed)
	local pushed = redis.pcall("LPUSH", KEYS[1], unpack(unpushed))
	if type(pushed) == "table" then
		for at, id in ipairs(unpushed) do
			unpushed[at] = prefix .. id
		end
		call("DEL", unpack(unpushed))
		error(pushed.err, 0)
	end
end

if all_plain and not careful then
	for job = 1, plain do
		call("HSET", keys[job], "msg", argv[2 * job + 4], "state", "pending", "pending_since", now_ns)
	end
	push(ids)
	remember("")
	return {}
end

local function store(id, msg, start, unique, ttl, group, fired, fired_score)
	-- A match is settled once, also where the answer is a duplicate: redelivered after the lock has gone, it must not come to run then.
	if fired ~= "" and call("ZADD", KEYS[4], "NX", fired_score, fired) == 0 then
		return "fired", id
	end
	local key = prefix .. id
	if call("EXISTS", key) == 1 then
		return "id", id
	end
	if unique ~= "" and not call("SET", unique, id, "NX", "PX", ttl) then
		return "unique", call("GET", unique) or ""
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
		call("HSET", key, "msg", msg, "state", state)
		call("ZADD", KEYS[2], math.ceil(start / 1000), id)
		call("ZADD", KEYS[5], start, id)
		if call("ZRANGE", KEYS[5], 0, 0)[1] == id then
			call("LPUSH", KEYS[6], "1")
			call("LTRIM", KEYS[6], 0, 0)
		end
	elseif group ~= "" then
		state = "aggregating"
		call("HSET", key, "msg", msg, "state", state, "group", group)
		call("ZADD", ARGV[2] .. group, now[1], id)
		call("SADD", KEYS[3], group)
	else
		call("HSET", key, "msg", msg, "state", state, "pending_since", now_ns)
		call("LPUSH", KEYS[1], id)
	end
	if unique ~= "" then
		call("HSET", key, "unique_key", unique)
	end
	return state, told
end

local answers, jobs, odd, unpushed = {}, 0, false, {}
i = 5
while i <= count do
	local id, state, told = argv[i], "pending", ""
	if not all_plain and argv[i + 2] ~= "" then
		if #unpushed > 0 then
			push(unpushed)
			unpushed = {}
		end
		state, told = store(id, argv[i + 1], argv[i + 3], argv[i + 4], argv[i + 5], argv[i + 6], argv[i + 7], argv[i + 8])
		i = i + 9
	else
		local key = prefix .. id
		if careful and call("EXISTS", key) == 1 then
			state, told = "id", id
		else
			call("HSET", key, "msg", argv[i + 1], "state", state, "pending_since", now_ns)
			unpushed[#unpushed + 1] = id
		end
		i = i + (all_plain and 2 or 3)
	end
	jobs = jobs + 1
	if state ~= "pending" and not odd then
		odd = true
		for earlier = 1, jobs - 1 do
			answers[2 * earlier - 1], answers[2 * earlier] = "pending", ""
		end
	end
	if odd then
		answers[2 * jobs - 1], answers[2 * jobs] = state, told
	end
end
if #unpushed > 0 then
	push(unpushed)
end
remember(odd and cjson.encode(answers) or "")
return answers
