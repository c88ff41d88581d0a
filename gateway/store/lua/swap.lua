-- KEYS: a hash. ARGV: a name, a value: what was there before.
local name, value = take(), take()
local before = redis.call('HGET', KEYS[1], name)
if before ~= value then redis.call('HSET', KEYS[1], name, value) end
return before
