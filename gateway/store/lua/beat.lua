-- KEYS: workers. ARGV: who, for how long (microseconds). A worker that was dead for a day is as one that never was.
redis.call('ZADD', KEYS[1], now + ARGV[4], ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 86400000000)
return 1
