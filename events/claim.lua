-- Takes over pending events whose consumer fell silent, and tells how often each was handed out.
--
-- KEYS[1] the stream
-- ARGV[1] group
-- ARGV[2] consumer that takes over
-- ARGV[3] how long the other consumer must have been silent, in milliseconds
-- ARGV[4] stream id to go on from
-- ARGV[5] most events to take
--
-- Returns {stream id to go on from ("0-0": that was all), {{stream id, count, fields}, ...}}
local answer = redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], 'COUNT', ARGV[5])
local events = {}
for _, entry in ipairs(answer[2]) do
  local id = entry[1]
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)
  events[#events + 1] = {id, pending[1][4], entry[2]}
end
return {answer[1], events}
