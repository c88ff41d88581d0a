-- KEYS: due, held, workers, then the predictions. ARGV: who claims, the name of this claim, their ids. A claim that is
-- made once more, because its answer was lost, brings what it brought the first time.
local worker, claim, count = take(), take(), take_number()
local found, free, taken, freed = {}, {}, {}, {}
for index = 1, count do
  local id, key = take(), KEYS[3 + index]
  local row = redis.call('HMGET', key, 'open', 'worker', 'fence', 'due', 'number', 'claim')
  local holder, till = row[2], nil
  if holder and holder ~= '' and holder ~= worker then till = redis.call('ZSCORE', KEYS[3], holder) end
  if row[1] ~= '1' then
    found[index] = false
  elseif holder == worker then
    found[index] = row[6] == claim
  elseif holder ~= '' and till and tonumber(till) > now then
    found[index] = false
  else
    local is_due = tonumber(row[4]) <= now
    found[index] = is_due
    local list = is_due and taken or freed
    list[#list + 1] = {id, key, holder, row[4], row[5], row[3]}
  end
end
for _, one in ipairs(taken) do
  redis.call('HSET', one[2], 'worker', worker, 'fence', one[6] + 1, 'claim', claim)
  redis.call('ZREM', KEYS[1], one[1])
  if one[3] ~= '' then redis.call('ZREM', KEYS[2], one[3] .. '\0' .. one[1]) end
  redis.call('ZADD', KEYS[2], 0, worker .. '\0' .. one[1])
end
for _, one in ipairs(freed) do
  if one[3] ~= '' then
    redis.call('HSET', one[2], 'worker', '')
    redis.call('ZREM', KEYS[2], one[3] .. '\0' .. one[1])
    redis.call('ZADD', KEYS[1], one[4] == '0' and one[5] or one[4], one[1])
  end
end
for index = 1, count do
  if found[index] then
    found[index] = redis.call(
      'HMGET', KEYS[3 + index], 'request', 'state', 'deliveries', 'open', 'due', 'worker', 'fence', 'key', 'hash'
    )
  end
end
return found
