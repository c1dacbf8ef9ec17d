-- Writes or removes the record of one trigger, unless somebody else has changed it since it was read.
--
-- KEYS[1] hash: name -> "<revision> <ms> <record>"
-- KEYS[2] hash: epoch (of the store's life), revision (of the newest change), at (its ms), change (its id)
-- ARGV[1] name
-- ARGV[2] revision that the record must have; 0: there must be none; -1: any
-- ARGV[3] record, JSON; "" removes it
-- ARGV[4] id of this change: a request that the client sends again, its answer lost, gets the first answer
-- ARGV[5] epoch, should the store have none yet
-- ARGV[6] most records to keep
-- ARGV[7] channel on which the processes listen
--
-- Returns {1, revision, ms}; {0, revision of the record, 0 if there is none} on a conflict; {-1, records} if there is no room
local version = redis.call('HMGET', KEYS[2], 'revision', 'at', 'change')
if version[3] == ARGV[4] then return {1, tonumber(version[1]), tonumber(version[2])} end

local record = redis.call('HGET', KEYS[1], ARGV[1])
local revision = 0
if record then revision = tonumber(string.match(record, '^%d+') or 0) end
if ARGV[2] ~= '-1' and tonumber(ARGV[2]) ~= revision then return {0, revision} end
if not record and ARGV[3] ~= '' then
  local records = redis.call('HLEN', KEYS[1])
  if records >= tonumber(ARGV[6]) then return {-1, records} end
end

local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('HSETNX', KEYS[2], 'epoch', ARGV[5])
revision = redis.call('HINCRBY', KEYS[2], 'revision', 1)
redis.call('HSET', KEYS[2], 'at', string.format('%.0f', ms), 'change', ARGV[4])
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %.0f ', revision, ms) .. ARGV[3])
end
-- Who may not publish loses the wake-up, not the change: the processes look by themselves, too.
redis.pcall('PUBLISH', ARGV[7], string.format('%.0f', revision))
return {1, revision, ms}
