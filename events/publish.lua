-- Stores events, each once.
--
-- KEYS[1]    the stream
-- KEYS[1+i]  the dedupe key of event i
-- ARGV[1]    dedupe window in milliseconds
-- ARGV[2]    cap of the stream
-- ARGV[3]    1: replicas are asked after this call; 0: they are not
-- ARGV[2i+2] token of this publish of event i: the same when the request is resent
-- ARGV[2i+3] event i in its JSON form
--
-- Returns, for event i: {kind, stream id}
--   kind 0: stored   1: was there already, with the id of the first   2: the stream is full, no id
local answers = {}
local room = tonumber(ARGV[2]) - redis.call('XLEN', KEYS[1])
for i = 1, #KEYS - 1 do
  local token = ARGV[2 * i + 2]
  local seen = redis.call('GET', KEYS[1 + i])
  if seen then
    local space = string.find(seen, ' ', 1, true)
    local kind = 1
    if string.sub(seen, space + 1) == token then
      kind = 0 -- this very request came before, its reply was lost
    end
    answers[i] = {kind, string.sub(seen, 1, space - 1)}
    if ARGV[3] == '1' then
      redis.call('SET', KEYS[1 + i], seen, 'KEEPTTL') -- WAIT asks only about what its own connection wrote
    end
  elseif room <= 0 then
    answers[i] = {2, ''}
  else
    local id = redis.call('XADD', KEYS[1], '*', 'event', ARGV[2 * i + 3])
    redis.call('SET', KEYS[1 + i], id .. ' ' .. token, 'PX', ARGV[1])
    room = room - 1
    answers[i] = {0, id}
  end
end
return answers
