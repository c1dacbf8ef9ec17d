#!lua flags=allow-oom
-- Notes that a worker watches a queue, and the request of its claim, which runs later, behind a blocking command. So the claim needs no note
-- of its own, and runs once at most: whatever the worker asks for next replaces it.
--
-- KEYS[1] bellhop:{q}:marks
-- KEYS[2] bellhop:{q}:watcher
-- ARGV[1] worker
-- ARGV[2] the worker's number
-- ARGV[3] session of the worker's requests
-- ARGV[4] the claim's number among the worker's requests
-- ARGV[5] how long the watch stays with a worker that says nothing (ms)
--
-- Returns 1, or 0 if the worker has no entry that the claim may follow: then it takes nothing.

local entry = redis.call("HGET", KEYS[1], ARGV[1]) or ""
local number, session, kind, count = string.match(entry, "^(%d+) (.*)(%a)(%d+)$")
local follows = number == ARGV[2] and session == ARGV[3] and
	(tonumber(count) < tonumber(ARGV[4]) or count == ARGV[4] and kind == "c")
if follows then
	redis.call("HSET", KEYS[1], ARGV[1], number .. " " .. session .. "c" .. ARGV[4])
end
redis.call("SET", KEYS[2], ARGV[1], "PX", ARGV[5])
return follows and 1 or 0
