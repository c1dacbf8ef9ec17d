#!lua flags=allow-oom
-- Takes an asker's marks off jobs whose end nobody awaits any more.
--
-- KEYS[1] bellhop:{q}:awaited
-- ARGV[1] channel
-- then the jobs' ids
--
-- Returns how many marks were taken off.

local n = 0
for i = 2, #ARGV do
	local channels = redis.call("HGET", KEYS[1], ARGV[i])
	if channels == ARGV[1] then
		n = n + redis.call("HDEL", KEYS[1], ARGV[i])
	elseif channels then
		local others = {}
		for channel in string.gmatch(channels, "%S+") do
			if channel == ARGV[1] then
				n = n + 1
			else
				others[#others + 1] = channel
			end
		end
		redis.call("HSET", KEYS[1], ARGV[i], table.concat(others, " "))
	end
end
return n
