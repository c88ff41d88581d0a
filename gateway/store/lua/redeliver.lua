-- KEYS as in finish_delivery. ARGV: id.
local id = take()
local sequence = redis.call('HGET', KEYS[2], 'last:completed')
if not sequence then return 'none' end
local row = redis.call(
  'HMGET', KEYS[2], sequence .. ':ended', sequence .. ':worker', sequence .. ':due', sequence .. ':body', 'host'
)
local is_ended, host = row[1] and row[1] ~= '', row[5]
if row[4] == '' then return 'none' end
if not is_ended and row[2] and row[2] ~= '' then return 'sending' end
redis.call('ZREM', KEYS[4], entry(host, row[3], id, sequence))
redis.call(
  'HSET', KEYS[2], sequence .. ':ended', '', sequence .. ':worker', '', sequence .. ':due', now, sequence .. ':tries', 0
)
redis.call('SADD', KEYS[3], sequence)
redis.call('ZADD', KEYS[4], 0, entry(host, now, id, sequence))
local aged = redis.call('HGET', KEYS[1], 'aged')
if aged and aged ~= '' then redis.call('ZREM', KEYS[6], aged) end
settle(KEYS[4], KEYS[5], host)
return 'due'
