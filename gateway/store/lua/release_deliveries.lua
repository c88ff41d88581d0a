-- KEYS: outbox, hosts, then the deliveries of the predictions. ARGV: what the fence grows by; for each its id, sequence
-- and fence, and when it was due.
local growth, count = take(), take_number()
local hosts = {}
for index = 1, count do
  local id, sequence, fence, due = take(), take(), take(), take()
  local key = KEYS[2 + index]
  local row = redis.call(
    'HMGET', key, sequence .. ':fence', sequence .. ':worker', sequence .. ':due', sequence .. ':ended', 'host'
  )
  if row[1] == fence and row[2] and row[2] ~= '' then
    redis.call('HINCRBY', key, sequence .. ':fence', growth)
    redis.call('HSET', key, sequence .. ':worker', '', sequence .. ':due', due)
    if not row[4] or row[4] == '' then
      redis.call('ZREM', KEYS[1], entry(row[5], row[3], id, sequence))
      redis.call('ZADD', KEYS[1], 0, entry(row[5], due, id, sequence))
      hosts[row[5]] = true
    end
  end
end
for host in pairs(hosts) do settle(KEYS[1], KEYS[2], host) end
return 1
