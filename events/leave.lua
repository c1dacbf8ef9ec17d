-- Takes a consumer out of its group without losing what it holds: XGROUP DELCONSUMER would drop its pending events, so
-- it goes only when it has none. What it has is made claimable at once.
--
-- KEYS[1]   the stream
-- ARGV[1]   group
-- ARGV[2]   consumer
-- ARGV[2+i] stream ids that no handler saw: handing them out isn't counted
--
-- Returns the number of events released; 0: the consumer is deleted
local unseen = {}
for i = 3, #ARGV do unseen[ARGV[i]] = true end
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1000000, ARGV[2])
for _, p in ipairs(pending) do
  local count = p[4]
  if unseen[p[1]] then count = math.max(0, count - 1) end
  redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, p[1], 'IDLE', 86400000, 'RETRYCOUNT', count, 'JUSTID')
end
if #pending == 0 then redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2]) end
return #pending
