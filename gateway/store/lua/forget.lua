-- Nothing of a prediction is left, but for its pointers. KEYS after the twelve: its owner's list, everybody's, the ids.
local id = take()
local row = redis.call('HMGET', PREDICTION, 'worker', 'aged', 'listed')
if not row[3] then return 0 end
local host = redis.call('HGET', DELIVERIES, 'host')
for _, sequence in ipairs(redis.call('SMEMBERS', WAITING)) do
  redis.call('ZREM', OUTBOX, entry(host, redis.call('HGET', DELIVERIES, sequence .. ':due'), id, sequence))
end
if host then settle(OUTBOX, HOSTS, host) end
redis.call('ZREM', DUE, id)
if row[1] and row[1] ~= '' then redis.call('ZREM', HELD, row[1] .. '\0' .. id) end
if row[2] and row[2] ~= '' then redis.call('ZREM', AGING, row[2]) end
redis.call('ZREM', MAYBES, row[3])
redis.call('ZREM', KEYS[13], row[3])
redis.call('ZREM', KEYS[14], row[3])
redis.call('ZREM', KEYS[15], id)
redis.call('HDEL', SEARCHED, id)
redis.call('DEL', PREDICTION, EVENTS, LEDGER, DELIVERIES, WAITING)
return 1
