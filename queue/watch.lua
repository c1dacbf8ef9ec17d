#!lua flags=allow-oom
-- Notes the request of a worker's next claim, which runs later, behind a blocking command. So the claim needs no note of its own, and runs
-- once at most: whatever the worker asks for next replaces it.
--
-- KEYS[1] bellhop:{q}:marks
-- KEYS[2] bellhop:{q}:beats
-- KEYS[3] bellhop:{q}:watcher
-- ARGV[1] worker
-- ARGV[2] the worker's number
-- ARGV[3] session of the worker's requests
-- ARGV[4] the claim's number among the worker's requests
-- ARGV[5] how long the watch stays with the worker if it says nothing (ms), in a full Redis, which refuses a SET that notes it; else 0
--
-- Returns 1, or 0 if the worker has no entry that the claim may follow, or its beats don't come: then the claim takes nothing.

if ARGV[5] ~= "0" then
	redis.call("SET", KEYS[3], ARGV[1], "PX", ARGV[5])
end
local entry = redis.call("HGET", KEYS[1], ARGV[1]) or ""
local number, session, kind, count = string.match(entry, "^(%d+) (.*)(%a)(%d+)$")
if number ~= ARGV[2] or session ~= ARGV[3] or tonumber(count) > tonumber(ARGV[4]) or count == ARGV[4] and kind ~= "c" then
	return 0
end
local beat, now = tonumber(redis.call("ZSCORE", KEYS[2], ARGV[1]) or 0), redis.call("TIME")
if now[1] * 1000 + math.floor(now[2] / 1000) - beat > 10000 then
	return 0
end
redis.call("HSET", KEYS[1], ARGV[1], number .. " " .. session .. "c" .. ARGV[4])
return 1
