#!lua flags=allow-oom
-- Switches an endpoint off, or on.
--
-- KEYS[1] state of the endpoint, KEYS[2] the index: see enter.lua
-- ARGV[1] endpoint
-- ARGV[2] reason to switch it off; empty: switch it on, and forget its failures
-- ARGV[3] milliseconds that the state is kept
--
-- Returns 1 if that changed anything, 0 if it was so before.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local was = redis.call('HEXISTS', KEYS[1], 'disabled')
if ARGV[2] ~= '' then
  redis.call('HSET', KEYS[1], 'disabled', ARGV[2], 'disabled_at', now)
  redis.call('PERSIST', KEYS[1])
  redis.call('ZADD', KEYS[2], 'inf', ARGV[1])
  return 1 - was
end
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
redis.call('HDEL', KEYS[1], 'disabled', 'disabled_at', 'failures', 'opened', 'until', 'rest', 'probe', 'paused', 'window')
redis.call('HSET', KEYS[1], 'last_at', now)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('ZADD', KEYS[2], now, ARGV[1])
return was
