-- Notes that a key is in use. A revoked one leaves no trace.
--
-- KEYS[1]  hash of the keys: id -> record
-- KEYS[2]  hash of when each was used last: id -> Unix seconds
-- ARGV[1]  id
-- ARGV[2]  for how many seconds an older note is good enough
--
-- Returns 1: noted   0: not
local now = tonumber(redis.call('TIME')[1])
local last = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or 0)
if now - last < tonumber(ARGV[2]) or redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return 0
end
redis.call('HSET', KEYS[2], ARGV[1], now)
return 1
