-- KEYS: the prediction, its deliveries, those of them that wait, outbox, hosts, aging. ARGV: id, sequence, fence, how it
-- ended or nothing, when it is due again or nothing, the record of its last tries.
local id, sequence, fence, ended, due, last = take(), take(), take(), take(), take(), take()
local row = redis.call(
  'HMGET', KEYS[2], sequence .. ':fence', sequence .. ':worker', sequence .. ':due', sequence .. ':ended', 'host'
)
if row[1] ~= fence or not row[2] or row[2] == '' then return 0 end
local was_ended, host = row[4] and row[4] ~= '', row[5]
if due == '' then due = row[3] end
redis.call(
  'HSET', KEYS[2], sequence .. ':fence', fence + 1, sequence .. ':worker', '', sequence .. ':due', due,
  sequence .. ':last', last
)
redis.call('HINCRBY', KEYS[2], sequence .. ':tries', 1)
redis.call('ZREM', KEYS[4], entry(host, row[3], id, sequence))
if ended ~= '' then
  redis.call('HSET', KEYS[2], sequence .. ':ended', ended)
  redis.call('SREM', KEYS[3], sequence)
  local prediction = redis.call('HMGET', KEYS[1], 'aged', 'erased')
  if prediction[2] then redis.call('HSET', KEYS[2], sequence .. ':body', '') end
  if prediction[1] and prediction[1] ~= '' and redis.call('SCARD', KEYS[3]) == 0 then
    redis.call('ZADD', KEYS[6], 0, prediction[1])
  end
elseif not was_ended then
  redis.call('ZADD', KEYS[4], 0, entry(host, due, id, sequence))
end
settle(KEYS[4], KEYS[5], host)
return 1
