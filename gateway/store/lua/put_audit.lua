-- KEYS: the trail, the number of its last row. ARGV: a row; its id if only its outcome is new, else 0; 1 to keep the row
-- of another store under its id.
local row, id, is_moved = take(), take_number(), take()
if is_moved == '1' then
  if tonumber(redis.call('GET', KEYS[2]) or 0) < id then redis.call('SET', KEYS[2], id) end
elseif id == 0 then
  id = redis.call('INCR', KEYS[2])
end
redis.call('HSET', KEYS[1], string.format('%.0f', id), row)
return id
