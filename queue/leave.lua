#!lua flags=allow-oom
-- A worker that owns nothing any more takes its leave: nobody waits for its beat, and its duties are free. If it kept the queue, those
-- who beat last are called to beat at once: one of them keeps it from then on.
--
-- KEYS[1] bellhop:{q}:beats
-- KEYS[2] bellhop:{q}:keeper
-- KEYS[3] bellhop:{q}:calls
-- KEYS[4] bellhop:{q}:watch
-- KEYS[5] bellhop:{q}:watcher
-- KEYS[6] bellhop:{q}:marks
-- ARGV[1] worker
-- ARGV[2] prefix of the workers' alive channels
-- ARGV[3] queue
--
-- Returns 1.

redis.call("ZREM", KEYS[1], ARGV[1])
if redis.call("GET", KEYS[2]) == ARGV[1] then
	redis.call("DEL", KEYS[2])
	for _, other in ipairs(redis.call("ZREVRANGE", KEYS[1], 0, 2)) do
		redis.pcall("PUBLISH", ARGV[2] .. other, ARGV[3]) -- without the right to, the next beat of one of them does
	end
end
redis.call("HDEL", KEYS[6], ARGV[1])
redis.call("HDEL", KEYS[3], ARGV[1] .. ":finish", ARGV[1] .. ":done")
if redis.call("GET", KEYS[5]) == ARGV[1] then
	redis.call("DEL", KEYS[5])
	redis.call("LPUSH", KEYS[4], "1")
	redis.call("LTRIM", KEYS[4], 0, 0)
end
return 1
