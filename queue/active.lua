-- Takes the ids in left out of the active list; gone has them as keys. To take one id out of a list costs its length. Jobs that end together
-- were mostly taken together, so the head of the list is read once and written back without them; only stragglers are searched for.
local function leave_active(active, left, gone)
	local call = redis.call
	if #left > 3 then
		local window = call("LLEN", active)
		if window > 16 * #left then
			window = 2 * #left + 16
		end
		window = math.min(window, 4000)
		local head = call("LRANGE", active, 0, window - 1)
		local keep, found, kept, missing = {}, {}, 0, #left
		for n = #head, 1, -1 do
			local id = head[n]
			if gone[id] and not found[id] then
				found[id] = true
				missing = missing - 1
			else
				kept = kept + 1
				keep[kept] = id
			end
		end
		call("LTRIM", active, #head, -1)
		if kept > 0 then
			call("LPUSH", active, unpack(keep))
		end
		if missing == 0 then
			return
		end
		local stragglers = {}
		for _, id in ipairs(left) do
			if not found[id] then
				stragglers[#stragglers + 1] = id
			end
		end
		left = stragglers
	end
	for _, id in ipairs(left) do
		call("LREM", active, 1, id)
	end
end
