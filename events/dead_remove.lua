-- Removes a dead match.
--
-- KEYS[1] hash: id -> dead match
-- KEYS[2] zset of the ids in the order of their events
-- ARGV[1] id
-- ARGV[2] its place in the order
--
-- Returns 1, or 0 if there was none
redis.call('ZREM', KEYS[2], ARGV[2])
return redis.call('HDEL', KEYS[1], ARGV[1])
