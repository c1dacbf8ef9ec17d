-- Ends a claim on an Idempotency-Key. A claim that has lapsed and was taken over changes nothing.
--
-- KEYS[1] bellhop:idempotency:<hash of API key and Idempotency-Key>
-- ARGV[1] claim
-- ARGV[2] "done": the answer is kept; "again": the outcome is not known, the same request may come again at once;
--         "forget": nothing was done, the key is free
-- ARGV[3] answer
-- ARGV[4] milliseconds that the record is kept
--
-- Returns 1, or 0 if the claim is not the one that holds.

if redis.call("HGET", KEYS[1], "claim") ~= ARGV[1] then
	return 0
end
if ARGV[2] == "forget" then
	redis.call("DEL", KEYS[1])
	return 1
elseif ARGV[2] == "done" then
	redis.call("HSET", KEYS[1], "answer", ARGV[3])
end
redis.call("HDEL", KEYS[1], "claim", "until")
redis.call("PEXPIRE", KEYS[1], ARGV[4])
return 1
