-- A prediction, unless it is still at this revision. KEYS: it. ARGV: the revision, the worker and fence it should be
-- held by, or nothing.
local revision, worker, fence = take(), take(), take()
local row = redis.call('HMGET', KEYS[1], 'revision', 'worker', 'fence')
if not row[1] then return {'GONE'} end
if fence ~= '' and (row[2] ~= worker or row[3] ~= fence) then return {'LOST'} end
if row[1] == revision then return 1 end
return {
  'STALE',
  unpack(redis.call('HMGET', KEYS[1], 'request', 'state', 'deliveries', 'open', 'due', 'worker', 'fence', 'key', 'hash'))
}
