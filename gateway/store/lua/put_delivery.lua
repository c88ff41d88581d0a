-- A delivery of another store, as it was there. KEYS as in finish_delivery. ARGV: its owner, url and host, sequence and
-- event, its entry in the outbox if it has not ended, its age's entry, its fields.
local owner, url, host, sequence, event, waits, count = take(), take(), take(), take(), take(), take(), take_number()
redis.call('HSET', KEYS[2], 'owner', owner, 'url', url, 'host', host, 'last:' .. event, sequence)
for _ = 1, count do
  local name, value = take(), take()
  redis.call('HSET', KEYS[2], name, value)
end
if waits ~= '' then
  redis.call('SADD', KEYS[3], sequence)
  redis.call('ZADD', KEYS[4], 0, waits)
  settle(KEYS[4], KEYS[5], host)
  local aged = redis.call('HGET', KEYS[1], 'aged')
  if aged and aged ~= '' then redis.call('ZREM', KEYS[6], aged) end
end
return 1
