-- Stores a key, unless its id is taken or there are too many.
--
-- KEYS[1]  hash of the keys: id -> record
-- KEYS[2]  version: changes with every change of the keys
-- ARGV[1]  id
-- ARGV[2]  record
-- ARGV[3]  new version
-- ARGV[4]  how many keys there may be
--
-- Returns 1: stored (also when this very request came before)   0: the id is taken   -1: too many
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known then
  return known == ARGV[2] and 1 or 0
end
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then
  return -1
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('SET', KEYS[2], ARGV[3])
return 1
