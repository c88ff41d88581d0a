-- KEYS: due, held, then the predictions. ARGV: who lets go, their ids.
local worker, count = take(), take_number()
for index = 1, count do
  local id, key = take(), KEYS[2 + index]
  local row = redis.call('HMGET', key, 'worker', 'open', 'due', 'number')
  if row[1] == worker then
    redis.call('HSET', key, 'worker', '')
    redis.call('ZREM', KEYS[2], worker .. '\0' .. id)
    if row[2] == '1' then redis.call('ZADD', KEYS[1], row[3] == '0' and row[4] or row[3], id) end
  end
end
return count
