-- Moves an entry that is no event out of a group's way, and acknowledges it.
--
-- KEYS[1] the stream
-- KEYS[2] the stream of undecodable entries
-- KEYS[3] the counter of them
-- ARGV[1] group
-- ARGV[2] stream id
-- ARGV[3] most undecodable entries to keep
-- ARGV[4] what is wrong with it
-- ARGV[5] its fields, as JSON
--
-- Returns 1, or 0 if the group had it acknowledged before
if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[2], ARGV[2], 1) == 0 then return 0 end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'id', ARGV[2], 'group', ARGV[1], 'error', ARGV[4], 'fields', ARGV[5])
redis.call('INCR', KEYS[3])
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) -- last: a full Redis refuses the writes before it
return 1
