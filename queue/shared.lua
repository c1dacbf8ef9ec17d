-- What several scripts need. It stands before each of those that ask for it.

-- A number as protobuf writes it.
local function varint(n)
	local bytes = {}
	while n >= 128 do
		bytes[#bytes + 1] = string.char(n % 128 + 128)
		n = math.floor(n / 128)
	end
	bytes[#bytes + 1] = string.char(n)
	return table.concat(bytes)
end

-- Gives an attempt's end no trace of what happened to the job before: neither crashes, for it did not die of them, nor an earlier end.
local function forgive(key)
	redis.call("HDEL", key, "pending_since", "bellhop_crashes", "bellhop_suspect", "bellhop_end")
end
