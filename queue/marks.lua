-- Who owns a running job stands in its lease, behind the second at which it ends: a mark, in parts of 2^21. Stock tools look at the
-- second. A mark is a worker's number, from 1, times 512, and the place of the fetch that took the job among the worker's last 512. What
-- a stock server leases has none. Scripts write string.format("%.17g", second + mark / marks), Redis' own way to write a score.

local marks, fetch_marks = 2097152, 512
