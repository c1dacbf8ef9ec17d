-- Stores one plain job: enqueue.lua for what comes alone, often to a Redis that has slept. Each kind of command costs some 12 us then, each
-- argument one.
--
-- KEYS[1] asynq:{q}:pending
-- KEYS[2] asynq:{q}:t:<id>
-- KEYS[3] bellhop:{q}:sent:<sender>, see enqueue.lua
-- ARGV[1] request: new for each request, the same when it is sent again
-- ARGV[2] id
-- ARGV[3] message
--
-- Returns 1 if the job is pending, 0 if nothing was done: then enqueue.lua tells why.

local call = redis.call
if call("EXISTS", KEYS[2]) == 1 then
	return 0
end
-- It is noted first that the job was sent: so one command tells what was sent before, too.
local last = call("SET", KEYS[3], ARGV[1] .. " ", "EX", 600, "GET")
local function putBack()
	if last then
		call("SET", KEYS[3], last, "EX", 600)
	else
		call("DEL", KEYS[3])
	end
end
if last and tonumber(string.match(last, "^%d+")) >= tonumber(ARGV[1]) then
	putBack()
	return 0
end

local now = call("TIME")
call("HSET", KEYS[2], "msg", ARGV[3], "state", "pending", "pending_since", now[1] .. string.sub(now[2] + 1000000, 2) .. "000")
local pushed = redis.pcall("LPUSH", KEYS[1], ARGV[2])
if type(pushed) == "table" then
	call("DEL", KEYS[2])
	putBack()
	return pushed
end
return 1
