-- Reading leases and marks, for scripts that don't run for each batch of jobs: making a function costs about as much as a command.

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

-- The number in a worker's entry of bellhop:{q}:marks, nil if it has none.
local function number_of(entry)
	return tonumber(string.match(entry or "", "^%d+") or nil)
end
