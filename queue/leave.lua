#!lua flags=allow-oom
-- A worker that owns nothing any more takes its leave: nobody waits for its beat, and its duties are free.
--
-- KEYS[1] bellhop:{q}:beats
-- KEYS[2] bellhop:{q}:keeper
-- KEYS[3] bellhop:{q}:calls
-- KEYS[4] bellhop:{q}:watch
-- KEYS[5] bellhop:{q}:watcher
-- ARGV[1] worker
--
-- Returns 1.

redis.call("ZREM", KEYS[1], ARGV[1])
if redis.call("GET", KEYS[2]) == ARGV[1] then
	redis.call("DEL", KEYS[2])
end
redis.call("HDEL", KEYS[3], ARGV[1] .. ":fetch", ARGV[1] .. ":finish")
if redis.call("GET", KEYS[5]) == ARGV[1] then
	redis.call("DEL", KEYS[5])
	redis.call("LPUSH", KEYS[4], "1")
	redis.call("LTRIM", KEYS[4], 0, 0)
end
return 1
