-- Who owns a running job stands in its lease, behind the second at which it ends: a mark, in parts of 2^21. Stock tools look at the
-- second. A mark is a worker's number, from 1, times 512, and the place of the fetch that took the job among the worker's last 512. What
-- a stock server leases has none. It stands before each script that reads or writes leases.

local marks, fetch_marks = 2097152, 512

-- The mark of a lease, 0 for a stock server's. Few of a call's leases differ.
local known_marks = {}
local function mark_of(score)
	local mark = known_marks[score]
	if not mark then
		mark = (tonumber(score) % 1) * marks
		known_marks[score] = mark
	end
	return mark
end

local function lease_score(second, mark)
	return string.format("%.17g", second + mark / marks)
end

-- The set of running jobs whose leases have marks from first to last.
local function marked(leases, first, last)
	local all, found = redis.call("ZRANGE", leases, 0, -1, "WITHSCORES"), {}
	for i = 1, #all, 2 do
		local mark = mark_of(all[i + 1])
		if mark >= first and mark <= last then
			found[all[i]] = true
		end
	end
	return found
end

-- Those of the worker with this number.
local function of_worker(leases, number)
	return marked(leases, number * fetch_marks, number * fetch_marks + fetch_marks - 1)
end

-- What stands in the hash of owners for a worker: its number and its last fetch that took jobs.
local function owner_number(text)
	local number, fetch = string.match(text or "", "^(%d+) (.*)$")
	return tonumber(number), fetch
end

-- The next number that nobody has, nil if all are taken. The last one given stands in the field "".
local function new_number(owners)
	local taken, most = {}, marks / fetch_marks - 1
	for _, owner in ipairs(redis.call("HVALS", owners)) do
		taken[owner_number(owner) or 0] = true
	end
	for _ = 1, most do
		local number = (redis.call("HINCRBY", owners, "", 1) - 1) % most + 1
		if not taken[number] then
			return number
		end
	end
	return nil
end
