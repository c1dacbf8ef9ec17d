-- Claims an Idempotency-Key for one request, or tells what became of the earlier one.
--
-- KEYS[1] bellhop:idempotency:<hash of API key and Idempotency-Key>
-- ARGV[1] fingerprint of the request
-- ARGV[2] claim: new for each request, the same when Redis is asked again
-- ARGV[3] milliseconds until the claim lapses, longer than a request may take
-- ARGV[4] milliseconds that the record is kept
--
-- Returns "new"; "other": the key was used for another request; "running" and the milliseconds that are left; "done" and the answer.

local now = redis.call("TIME")
local now_ms = tonumber(now[1]) * 1000 + math.floor(now[2] / 1000)

local record = redis.call("HMGET", KEYS[1], "fingerprint", "claim", "until", "answer")
if record[1] and record[1] ~= ARGV[1] then
	return {"other", ""}
elseif record[4] then
	return {"done", record[4]}
elseif record[2] and record[2] ~= ARGV[2] and tonumber(record[3]) > now_ms then
	return {"running", tostring(tonumber(record[3]) - now_ms)}
end
redis.call("HSET", KEYS[1], "fingerprint", ARGV[1], "claim", ARGV[2], "until", string.format("%.0f", now_ms + ARGV[3]))
redis.call("PEXPIRE", KEYS[1], ARGV[4])
return {"new", ""}
