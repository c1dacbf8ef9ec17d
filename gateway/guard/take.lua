-- Takes tokens out of a bucket that fills at a rate. The one bucket is the fleet's: all that is handed out comes from it.
--
-- KEYS[1]  the bucket: the microsecond (Redis TIME) at which it will be full again; none: it is full
-- ARGV[1]  microseconds until one token has grown
-- ARGV[2]  tokens that a full bucket holds
-- ARGV[3]  tokens wanted
--
-- Returns {tokens taken, 0 if the bucket is empty; tokens left; microseconds until there is one, 0 if some were taken}
local each, size, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local stored = tonumber(redis.call('GET', KEYS[1]) or 0)
-- After a clock was set back, or a rate was raised, the bucket is empty, and not more than that.
local full = math.min(math.max(stored, now), now + each * size)
local there = math.floor((now + each * size - full) / each + 0.000001)
local taken = math.max(0, math.min(wanted, there))
full = full + taken * each
if full ~= stored then
  redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000) + 1)
end
if taken == 0 then
  return {0, 0, math.ceil(full + each - now - each * size)}
end
return {taken, there - taken, 0}
