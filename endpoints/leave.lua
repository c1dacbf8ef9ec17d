#!lua flags=allow-oom
-- Tells how a call ended.
--
-- KEYS[1] state of the endpoint, KEYS[2] its running calls, KEYS[3] the index: see enter.lua
-- KEYS[4] attempts: a list of JSON, the newest first
-- ARGV[1]  endpoint
-- ARGV[2]  token of the call
-- ARGV[3]  outcome: delivered, failed, gone, abandoned
-- ARGV[4]  failures in a row that open the circuit
-- ARGV[5]  first time that it stays open (ms)
-- ARGV[6]  longest time that it stays open (ms)
-- ARGV[7]  milliseconds that the endpoint asked to be left alone, 0 if it did not
-- ARGV[8]  calls that an endpoint of unknown health may have at once
-- ARGV[9]  attempt as JSON, empty for none
-- ARGV[10] attempts kept
-- ARGV[11] milliseconds that the state is kept
-- ARGV[12] reason to switch the endpoint off, of the outcome gone
--
-- Returns what it has changed: "opened" with the milliseconds until a probe, "closed", "disabled"; "" for nothing, and where the call is
-- not known any more: its lease has ended, or this request was sent before.
if redis.call('ZREM', KEYS[2], ARGV[2]) == 0 then
  return {''}
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local v = redis.call('HMGET', KEYS[1], 'disabled', 'failures', 'opened', 'window', 'at', 'probe', 'paused')
local failures, opened = tonumber(v[2] or 0), tonumber(v[3] or 0)
local window = tonumber(v[4] or ARGV[8])
if now - tonumber(v[5] or now) > 60000 then
  window = math.min(window, tonumber(ARGV[8]))
end

if ARGV[9] ~= '' then
  redis.call('LPUSH', KEYS[4], ARGV[9])
  redis.call('LTRIM', KEYS[4], 0, ARGV[10] - 1)
  redis.call('PEXPIRE', KEYS[4], ARGV[11])
end
if v[6] == ARGV[2] then
  redis.call('HDEL', KEYS[1], 'probe')
end

local changed = {''}
if ARGV[3] == 'delivered' then
  redis.call('HINCRBY', KEYS[1], 'delivered', 1)
  redis.call('HSET', KEYS[1], 'failures', 0, 'window', math.min(window + 1, 10000), 'at', now, 'last_at', now, 'delivered_at', now)
  redis.call('HDEL', KEYS[1], 'opened', 'until', 'rest')
  if opened > 0 then
    changed = {'closed'}
  end
elseif ARGV[3] == 'failed' then
  redis.call('HINCRBY', KEYS[1], 'failed', 1)
  failures = failures + 1
  redis.call('HSET', KEYS[1], 'failures', failures, 'window', math.max(math.floor(window / 2), 1), 'at', now, 'last_at', now, 'failed_at', now)
  -- Calls that began before the circuit opened say nothing new.
  if opened == 0 and failures >= tonumber(ARGV[4]) or opened > 0 and v[6] == ARGV[2] then
    local rest = math.min(ARGV[5] * 2 ^ math.min(opened, 30), tonumber(ARGV[6]))
    redis.call('HSET', KEYS[1], 'opened', opened + 1, 'until', now + rest, 'rest', rest)
    changed = {'opened', rest}
  end
  if tonumber(ARGV[7]) > 0 then
    redis.call('HSET', KEYS[1], 'paused', math.max(now + ARGV[7], tonumber(v[7] or 0)))
  end
elseif ARGV[3] == 'gone' then
  redis.call('HINCRBY', KEYS[1], 'failed', 1)
  redis.call('HSET', KEYS[1], 'disabled', ARGV[12], 'disabled_at', now, 'last_at', now, 'failed_at', now)
  changed = {'disabled'}
end

if v[1] or ARGV[3] == 'gone' then
  redis.call('PERSIST', KEYS[1])
  redis.call('ZADD', KEYS[3], 'inf', ARGV[1])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[11])
end
return changed
