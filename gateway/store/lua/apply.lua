local id, revision, worker, fence = take(), take(), take(), take()
local row = redis.call('HMGET', PREDICTION, 'revision', 'worker', 'fence', 'open', 'due', 'number', 'deliveries', 'aged', 'listed')
if not row[1] then return {'GONE'} end
if fence ~= '' and (row[2] ~= worker or row[3] ~= fence) then return {'LOST'} end
if row[1] ~= revision then return {'STALE', unpack(redis.call('HMGET', PREDICTION, unpack(ROW)))} end
if not take_pointers(13) then return {'TAKEN'} end

local state, next_revision, is_open, due, searched, aged, request = take(), take(), take(), take(), take(), take(), take()
redis.call('HSET', PREDICTION, 'state', state, 'revision', next_revision)
if is_open ~= row[4] or due ~= row[5] then
  redis.call('HSET', PREDICTION, 'open', is_open, 'due', due)
  place(id, is_open, due, row[2], row[6])
end
if searched ~= '' then redis.call('HSET', SEARCHED, id, searched) end
write_pointers(13)
write_attempts()
write_events()
write_ledger(row[9])
local before = tonumber(row[7])
local deliveries = write_deliveries(id, before)
if deliveries ~= before then redis.call('HSET', PREDICTION, 'deliveries', deliveries) end
if is_open == '0' or row[4] == '0' then write_age(aged, row[8]) end
if request ~= '' then erase(request, deliveries) end

-- Whoever follows it hears of it, and the holder, unless it was the holder who did it. They know their own by `origin`.
local origin, channel, holders = take(), take(), take()
redis.call('PUBLISH', channel .. id, origin)
if row[2] ~= '' and fence == '' then redis.call('PUBLISH', holders .. row[2], origin .. ' ' .. id) end
return deliveries
