-- KEYS after the twelve: the owner's list, everybody's, the ids, the number of the newest; then pointers.
local OWNED, LISTED, IDS, NUMBER = KEYS[13], KEYS[14], KEYS[15], KEYS[16]
local id = take()
local kept = redis.call('HMGET', PREDICTION, unpack(ROW))
if kept[2] then return {'KEPT', unpack(kept)} end
if not take_pointers(17) then return {'TAKEN'} end

local worker, owner, stream, listed = take(), take(), take(), take()
local request, state, is_open, revision, searched, model, aged = take(), take(), take(), take(), take(), take(), take()
local due, is_erased, key, hash, lasts = take(), take(), take(), take(), take_number()
local number = redis.call('INCR', NUMBER)
redis.call(
  'HSET', PREDICTION, 'request', request, 'state', state, 'revision', revision, 'open', is_open, 'due', due,
  'worker', worker, 'fence', worker == '' and '0' or '1', 'number', number, 'owner', owner, 'stream', stream,
  'listed', listed, 'model', model, 'deliveries', '0'
)
if key ~= '' then redis.call('HSET', PREDICTION, 'key', key, 'hash', hash, 'until', now + lasts) end
if is_erased == '1' then redis.call('HSET', PREDICTION, 'erased', 1) end
redis.call('HSET', SEARCHED, id, searched)
redis.call('ZADD', OWNED, 0, listed)
redis.call('ZADD', LISTED, 0, listed)
redis.call('ZADD', IDS, 0, id)
write_pointers(17)
place(id, is_open, due, worker, number)
write_attempts()
write_events()
write_ledger(listed)
local deliveries = write_deliveries(id, tonumber(take()))
redis.call('HSET', PREDICTION, 'deliveries', deliveries)
write_age(aged, false)
return deliveries
