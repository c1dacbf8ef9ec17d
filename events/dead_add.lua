-- Keeps dead matches, each once.
--
-- KEYS[1]    hash: id -> dead match
-- KEYS[2]    zset of the ids in the order of their events
-- ARGV[1]    most dead matches to keep
-- ARGV[3i-1] id i
-- ARGV[3i]   its place in the order
-- ARGV[3i+1] the dead match as JSON
--
-- Returns 1; 0 if there is no room for all of them: then none is kept
local new = 0
for i = 2, #ARGV, 3 do
  new = new + 1 - redis.call('HEXISTS', KEYS[1], ARGV[i])
end
if new > 0 and redis.call('HLEN', KEYS[1]) + new > tonumber(ARGV[1]) then return 0 end
for i = 2, #ARGV, 3 do
  if redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 2]) == 1 then
    redis.call('ZADD', KEYS[2], 0, ARGV[i + 1])
  end
end
return 1
