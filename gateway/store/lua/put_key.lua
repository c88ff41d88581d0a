-- An idempotency key of another store. KEYS: the key. ARGV: id, how long it is still kept (microseconds).
local id, lasts = take(), take_number()
redis.call('HSET', KEYS[1], 'id', id, 'until', now + lasts)
redis.call('PEXPIRE', KEYS[1], math.ceil(lasts / 1000) + 3600000)
return 1
