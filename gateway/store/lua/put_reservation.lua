-- Of another store, in place of what is there. ARGV: id, nanos, when, 1 if it is open, revision, how many counters, and
-- each of them.
local id = take()
local row = {nanos = take_number(), at = take_number(), is_open = take() == '1', fence = 0, revision = take_number()}
row.counters = {}
for index = 1, take_number() do row.counters[index] = take() end
write_reservation(id, read_reservation(id), row)
return 1
