-- KEYS: outbox, hosts, then the deliveries of the predictions. ARGV: who claims, for how long (microseconds), and for
-- each its host, its entry and its sequence.
local worker, lease, count = take(), take_number(), take_number()
local found, hosts = {}, {}
for index = 1, count do
  local host, tail, sequence = take(), take(), take()
  local key, member = KEYS[2 + index], host .. '\0' .. tail
  found[index] = false
  if redis.call('ZSCORE', KEYS[1], member) then
    local fence = redis.call('HINCRBY', key, sequence .. ':fence', 1)
    local row = redis.call(
      'HMGET', key, 'owner', 'url', sequence .. ':event', sequence .. ':body', sequence .. ':made', sequence .. ':due',
      sequence .. ':tries', sequence .. ':ended', sequence .. ':last', sequence .. ':fence'
    )
    redis.call('HSET', key, sequence .. ':worker', worker, sequence .. ':due', now + lease)
    redis.call('ZREM', KEYS[1], member)
    redis.call('ZADD', KEYS[1], 0, host .. '\0' .. digits(now + lease) .. string.sub(tail, 17))
    hosts[host] = true
    found[index] = row
  end
end
for host in pairs(hosts) do settle(KEYS[1], KEYS[2], host) end
return found
