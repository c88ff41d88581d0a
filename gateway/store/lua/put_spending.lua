-- Of another store, in place of what is there. ARGV: counter, end of its window, limit, settled, reserved, open.
local counter = take()
write_spending(counter, {
  ends = take_number(), limit = take_number(), settled = take_number(), reserved = take_number(), open = take_number(),
})
return 1
