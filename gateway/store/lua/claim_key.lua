-- Which prediction an idempotency key stands for: from now on this one, unless it has stood for another one already.
-- KEYS: the key. ARGV: id, how long it is kept (microseconds), 1 to begin that time anew for the same id.
local id, lasts, renews = take(), take_number(), take()
local kept = redis.call('HMGET', KEYS[1], 'id', 'until')
if kept[1] and tonumber(kept[2]) > now and not (renews == '1' and kept[1] == id) then return kept[1] end
redis.call('HSET', KEYS[1], 'id', id, 'until', now + lasts)
redis.call('PEXPIRE', KEYS[1], math.ceil(lasts / 1000) + 3600000)
return id
