#!lua flags=allow-oom
-- Takes the key of an effect for one run of it, unless the effect has taken place or another run holds the key.
--
-- KEYS[1] bellhop:once:<key>: a hash of state (running, open, done), owner, fence, until (ms), result
-- ARGV[1] owner: of this one run
-- ARGV[2] lease in milliseconds
-- ARGV[3] milliseconds that the key is remembered
--
-- Returns {1, fence} if it is taken; {0, milliseconds} while another run holds it, and how long yet; {2} if the effect has taken
-- place, {2, result} if a result was kept.

local now = redis.call("TIME")
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local held = redis.call("HMGET", KEYS[1], "state", "owner", "fence", "until", "result")
local state, owner, fence, till, result = held[1], held[2], tonumber(held[3] or 0), tonumber(held[4] or 0), held[5]

if state == "done" then
	if result then
		return {2, result}
	end
	return {2}
end
if owner == ARGV[1] then
	-- A copy of a request whose answer was lost; or one that was so long on its way that its run is over.
	if state == "running" then
		return {1, fence}
	end
	return {0, 0}
end
if state == "running" and till > now_ms then
	return {0, till - now_ms}
end
redis.call("HSET", KEYS[1], "state", "running", "owner", ARGV[1], "fence", fence + 1, "until", now_ms + ARGV[2])
redis.call("PEXPIRE", KEYS[1], ARGV[2] + ARGV[3])
return {1, fence + 1}
