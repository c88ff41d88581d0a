-- Money for one attempt, under all of its holds or under none. ARGV: id, nanos, fence, how many holds, and of each its
-- counter, its limit, the end of its window, 1 if it refuses nothing. Answers nothing, or which hold refused (from 0),
-- and what was settled and reserved of it.
local id, nanos, fence, holds = take(), take_number(), take_number(), {}
for index = 1, take_number() do
  holds[index] = {counter = take(), limit = take_number(), ends = take_number(), is_soft = take() == '1'}
end
local kept = read_reservation(id)
if kept and (kept.fence > fence or (not kept.is_open and kept.nanos > 0)) then return false end
local held = kept and kept.is_open and kept or nil
for index, hold in ipairs(holds) do
  local spent = read_spending(hold.counter) or {settled = 0, reserved = 0}
  local already = held and held.is_on[hold.counter] and held.nanos or 0
  if not hold.is_soft and nanos > already and spent.settled + spent.reserved - already + nanos > hold.limit then
    return {index - 1, whole(spent.settled), whole(spent.reserved - already)}
  end
end

if held then add(held.counters, 0, -held.nanos, -1) end
local counters = {}
for index, hold in ipairs(holds) do
  local spent = read_spending(hold.counter) or {settled = 0, reserved = 0, open = 0}
  spent.ends, spent.limit = hold.ends, hold.limit
  spent.reserved, spent.open = spent.reserved + nanos, spent.open + 1
  write_spending(hold.counter, spent)
  counters[index] = hold.counter
end
write_reservation(id, kept, {
  is_open = true, nanos = nanos, at = now, fence = fence, revision = kept and kept.revision or 0, counters = counters,
})
return false
