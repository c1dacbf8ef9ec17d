-- Renews a consumer's hold on its pending events: they count as not idle from now on.
-- XCLAIM alone would take back what another consumer claimed meanwhile, so the owner is checked first.
--
-- KEYS[1]   the stream
-- ARGV[1]   group
-- ARGV[2]   consumer
-- ARGV[3]   1: they are about to be handed out again, count that; 0: they are not
-- ARGV[3+i] stream id i
--
-- Returns for id i: how often it was handed out; 0: this consumer doesn't hold it (any more)
local counts = {}
for i = 4, #ARGV do
  local mine = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2])
  if #mine == 0 then
    counts[#counts + 1] = 0
  else
    local count = mine[1][4] + tonumber(ARGV[3])
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'RETRYCOUNT', count, 'JUSTID')
    counts[#counts + 1] = count
  end
end
return counts
