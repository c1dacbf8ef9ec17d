-- Removes events that every durable group has acknowledged and that are no longer wanted: those past the retention,
-- and, while the stream is above its target length, the oldest others. Never one that a group still awaits.
-- One call removes a bounded number: call again while it removes something.
--
-- KEYS[1] the stream
-- ARGV[1] retention in milliseconds
-- ARGV[2] target length
-- ARGV[3] most entries to remove in this call
--
-- Returns {removed, id before which everything is gone ("0-0": nothing ever was), length}

local function parse(id)
  local ms, seq = string.match(id, '^(%d+)-?(%d*)$')
  return tonumber(ms), tonumber(seq) or 0
end

local function less(a, b)
  local ams, aseq = parse(a)
  local bms, bseq = parse(b)
  return ams < bms or (ams == bms and aseq < bseq)
end

local function after(id)
  local ms, seq = parse(id)
  return string.format('%.0f-%.0f', ms, seq + 1)
end

local function field(list, name)
  for i = 1, #list, 2 do
    if list[i] == name then return list[i + 1] end
  end
end

-- The first event that a durable group still awaits; nil when there is no group: then nobody has acknowledged anything.
local function awaited()
  local first
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local pending = redis.call('XPENDING', KEYS[1], field(group, 'name'))
    local id
    if pending[1] > 0 then
      id = pending[2]
    else
      id = after(field(group, 'last-delivered-id'))
    end
    if not first or less(id, first) then first = id end
  end
  return first
end

local function oldest()
  local head = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
  if #head > 0 then return head[1][1] end
  local last = field(redis.call('XINFO', 'STREAM', KEYS[1]), 'last-generated-id')
  if not last or last == '' or last == '0-0' then return '0-0' end
  return after(last)
end

-- ~ removes whole nodes of the stream and is cheap; what remains in the last node is removed one by one.
local function trim_before(id, limit)
  local n = redis.call('XTRIM', KEYS[1], 'MINID', '~', id, 'LIMIT', limit)
  if n == 0 then n = redis.call('XTRIM', KEYS[1], 'MINID', '=', id) end
  return n
end

-- Removes the oldest n acknowledged entries, some at a time.
local function trim_oldest(n, before)
  if n > 10 then
    local removed = redis.call('XTRIM', KEYS[1], 'MINID', '~', before, 'LIMIT', n)
    if removed > 0 then return removed end
    n = 10
  end
  local head = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', n + 1)
  local id = before
  if #head == n + 1 and less(head[n + 1][1], before) then id = head[n + 1][1] end
  return redis.call('XTRIM', KEYS[1], 'MINID', '=', id)
end

if redis.call('EXISTS', KEYS[1]) == 0 then return {0, '0-0', 0} end

local removed = 0
local floor = awaited()
if floor then
  local limit = tonumber(ARGV[3])
  local now = redis.call('TIME')
  local expired = string.format('%.0f-0', math.max(0, now[1] * 1000 + math.floor(now[2] / 1000) - tonumber(ARGV[1])))
  removed = trim_before(less(expired, floor) and expired or floor, limit)
  local target = tonumber(ARGV[2])
  local excess = math.min(redis.call('XLEN', KEYS[1]) - target, limit)
  if removed == 0 and excess > 0 then removed = trim_oldest(excess, floor) end
end
return {removed, oldest(), redis.call('XLEN', KEYS[1])}
