-- KEYS: a hash. ARGV: a name: the next number under it.
return redis.call('HINCRBY', KEYS[1], take(), 1)
