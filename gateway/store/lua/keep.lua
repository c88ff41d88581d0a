-- KEYS: a hash. ARGV: a name, a value: the first one stays.
local name, value = take(), take()
redis.call('HSETNX', KEYS[1], name, value)
return redis.call('HGET', KEYS[1], name)
