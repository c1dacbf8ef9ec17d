-- Telling those who await a job that it has ended. It stands before each script that ends jobs, in a function that makes the function: most
-- calls have nobody to tell.

local function teller()
	-- What is longer is left to who reads the job's hash, where that is kept.
	local longest_told = 65536

	local function told(text)
		if not text then
			return ""
		elseif #text > longest_told then
			return "#" .. #text
		end
		return "=" .. text
	end

	-- One message a channel and job: "<word> <length of the job's key> <length of the message> <key><message><result>", message and
	-- result as told() puts them. result(n) is the n-th job's, if it isn't in its hash. Call it while the hashes are there.
	return function(awaited, prefix, ids, word, result)
		local channels = redis.call("HMGET", awaited, unpack(ids))
		local done = {}
		for n, id in ipairs(ids) do
			if channels[n] then
				done[#done + 1] = id
				local key = prefix .. id
				local job = redis.call("HMGET", key, "msg", "result")
				local msg = told(job[1])
				local text = string.format("%s %d %d ", word(n), #key, #msg) .. key .. msg .. (result(n) or told(job[2]))
				for channel in string.gmatch(channels[n], "%S+") do
					redis.pcall("PUBLISH", channel, text) -- without the right to, they find out by a look
				end
			end
		end
		if #done > 0 then
			redis.call("HDEL", awaited, unpack(done))
		end
	end
end
