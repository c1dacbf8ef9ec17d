-- Reads the beginning of some jobs' messages: one of them can be as large as Redis allows.
--
-- KEYS    asynq:{q}:t:<id>, of jobs of one queue
-- ARGV[1] the most bytes of each
--
-- Returns two for each job: the length of its message, -1 if there is none; its beginning.
local reply = {}
for _, key in ipairs(KEYS) do
	local message = redis.call("HGET", key, "msg")
	reply[#reply + 1] = message and #message or -1
	reply[#reply + 1] = message and string.sub(message, 1, tonumber(ARGV[1])) or ""
end
return reply
