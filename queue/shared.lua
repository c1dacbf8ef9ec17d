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

-- The day of a Unix second, in UTC, from the days since 1970 (Hinnant's civil_from_days).
local function day_of(s)
	local z = math.floor(s / 86400) + 719468
	local era = math.floor(z / 146097)
	local doe = z - era * 146097
	local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
	local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
	local mp = math.floor((5 * doy + 2) / 153)
	local d = doy - math.floor((153 * mp + 2) / 5) + 1
	local m = mp < 10 and mp + 3 or mp - 9
	local y = yoe + era * 400 + (m <= 2 and 1 or 0)
	return string.format("%04d-%02d-%02d", y, m, d)
end

-- Adds to a counter of asynq's, in total and for the day.
local function count(key, n, now_s)
	local of_day = key .. ":" .. day_of(now_s)
	if redis.call("INCRBY", of_day, n) == n then
		redis.call("EXPIREAT", of_day, now_s + 90 * 86400)
	end
	local total = redis.pcall("INCRBY", key, n)
	if type(total) == "table" and total.err then
		redis.call("SET", key, n) -- past the largest integer: as asynq does, count anew
	end
end

-- Gives an attempt's end no trace of what happened to the job before: neither crashes, for it did not die of them, nor an earlier end.
local function forgive(key)
	redis.call("HDEL", key, "pending_since", "bellhop_crashes", "bellhop_suspect", "bellhop_end")
end
