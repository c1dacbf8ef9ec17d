-- Removes a key.
--
-- KEYS[1]  hash of the keys: id -> record
-- KEYS[2]  version: changes with every change of the keys
-- KEYS[3]  hash of when each was used last: id -> Unix seconds
-- ARGV[1]  id
-- ARGV[2]  new version
--
-- Returns 1: removed (also when this very request came before)   0: there is none
redis.call('HDEL', KEYS[3], ARGV[1])
if redis.call('HDEL', KEYS[1], ARGV[1]) == 1 then
  redis.call('SET', KEYS[2], ARGV[2])
  return 1
end
return redis.call('GET', KEYS[2]) == ARGV[2] and 1 or 0
