-- What a reservation came to. ARGV: id, nanos (nothing: what was reserved), revision of the prediction, and when it was
-- reserved, if it is to be settled only as it was then (0: however it is now).
local id, nanos, revision, reserved_at = take(), tonumber(take()), take_number(), take_number()
local kept = read_reservation(id)
if not kept or revision < kept.revision or (reserved_at > 0 and kept.at ~= reserved_at) then return 0 end
local came_to = nanos or kept.nanos
if kept.is_open then
  add(kept.counters, came_to, -kept.nanos, -1)
else
  add(kept.counters, came_to - kept.nanos, 0, 0)
end
write_reservation(id, kept, {
  is_open = false, nanos = came_to, at = kept.is_open and now or kept.at, fence = kept.fence, revision = revision,
  counters = kept.counters,
})
return 1
