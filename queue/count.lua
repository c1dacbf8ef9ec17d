-- Adds to a counter of asynq's, in total and for the day.
local function count(key, n, now_s)
	-- The day of a Unix second, in UTC, from the days since 1970 (Hinnant's civil_from_days).
	local z = math.floor(now_s / 86400) + 719468
	local era = math.floor(z / 146097)
	local doe = z - era * 146097
	local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
	local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
	local mp = math.floor((5 * doy + 2) / 153)
	local m = mp < 10 and mp + 3 or mp - 9
	local y = yoe + era * 400 + (m <= 2 and 1 or 0)
	local of_day = string.format("%s:%04d-%02d-%02d", key, y, m, doy - math.floor((153 * mp + 2) / 5) + 1)

	if redis.call("INCRBY", of_day, n) == n then
		redis.call("EXPIREAT", of_day, now_s + 90 * 86400)
	end
	local total = redis.pcall("INCRBY", key, n)
	if type(total) == "table" and total.err then
		redis.call("SET", key, n) -- past the largest integer: as asynq does, count anew
	end
end
