#!lua flags=allow-oom
-- Asks for leave to call an endpoint.
--
-- KEYS[1] state of the endpoint: a hash of
--           disabled, disabled_at      why it was switched off, and when (ms)
--           failures                   in a row
--           opened, until, rest, probe how often in a row the circuit has opened (0 or absent: closed), when it lets a probe through (ms), how
--                                      long it was closed for (ms), and the token of the call that probes
--           paused                     until when the endpoint asked to be left alone (ms)
--           window, at                 how many calls may run at once, and when the last one ended (ms)
--           tat, line                  of the rate: when the next call is due, and the end of the line of those that wait (ms)
--           label, delivered, failed, last_at, delivered_at, failed_at
-- KEYS[2] running calls: a zset of tokens, scored by the end of their leases (ms)
-- KEYS[3] index: a zset of endpoints, scored by their last use (ms); what is switched off has the score inf
-- ARGV[1] endpoint
-- ARGV[2] token of this call: the same if the request is sent again
-- ARGV[3] lease of the call (ms)
-- ARGV[4] calls a second that the endpoint wants at most, 0 for no limit
-- ARGV[5] calls that an endpoint of unknown health may have at once
-- ARGV[6] milliseconds that the state is kept
-- ARGV[7] what people call the endpoint
-- ARGV[8] calls of it at once, at most
--
-- Returns {"go"}, {"probe"}, {"disabled", reason} or {"open" | "paused" | "busy" | "rate", milliseconds to wait, milliseconds to spread
-- over}.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local names = {'disabled', 'opened', 'until', 'rest', 'paused', 'window', 'at', 'tat', 'line', 'probe'}
local values = redis.call('HMGET', KEYS[1], unpack(names))
local s = {}
for i, name in ipairs(names) do
  s[name] = values[i]
end
local function number(name) return tonumber(s[name] or 0) or 0 end

if s.disabled then
  return {'disabled', s.disabled}
end
if redis.call('ZSCORE', KEYS[2], ARGV[2]) then
  return {s.probe == ARGV[2] and 'probe' or 'go'}
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)

if now < number('paused') then
  return {'paused', number('paused') - now, math.max(math.floor((number('paused') - now) / 4), 50)}
end
local open = number('opened') > 0
if open and now < number('until') then
  return {'open', number('until') - now, math.max(math.floor(number('rest') / 2), 50)}
end

-- A circuit that is due to be probed takes one call. One that is closed takes as many as the endpoint has lately deserved: else the first
-- calls to a dead one would hold every slot until they time out. Who finds no room comes back after as long as the oldest call has run.
local room = tonumber(ARGV[5])
if open then
  room = 1
elseif s.window then
  room = tonumber(s.window)
  if now - number('at') > 60000 then
    room = math.min(room, tonumber(ARGV[5]))
  end
end
if redis.call('ZCARD', KEYS[2]) >= math.min(room, tonumber(ARGV[8])) then
  local oldest = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
  local age = tonumber(ARGV[3]) - (tonumber(oldest[2]) - now)
  local wait = math.min(math.max(age, 25), 10000)
  return {'busy', wait, wait}
end

if tonumber(ARGV[4]) > 0 then
  local interval = 1000 / tonumber(ARGV[4])
  local burst = math.max(tonumber(ARGV[4]) - 1, 0) * interval
  local tat = math.max(number('tat'), now)
  if tat - now > burst then
    -- Each that waits stands one interval behind the other, so that they don't come in vain together.
    local line = math.max(number('line') + interval, tat - burst)
    redis.call('HSET', KEYS[1], 'line', string.format('%.3f', line))
    return {'rate', math.ceil(math.max(line - now, 1)), math.ceil(interval / 2)}
  end
  redis.call('HSET', KEYS[1], 'tat', string.format('%.3f', tat + interval))
end

redis.call('ZADD', KEYS[2], now + ARGV[3], ARGV[2])
redis.call('PEXPIRE', KEYS[2], math.max(tonumber(ARGV[3]), tonumber(ARGV[6])))
redis.call('HSET', KEYS[1], 'label', ARGV[7])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - ARGV[6])
redis.call('ZADD', KEYS[3], now, ARGV[1])
if open then
  redis.call('HSET', KEYS[1], 'probe', ARGV[2])
  return {'probe'}
end
return {'go'}
