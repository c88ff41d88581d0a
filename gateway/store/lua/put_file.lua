-- KEYS: the file, its owner's list, all files by their time. ARGV: owner, file, place in the list, place among all.
local owner, body, listed, expires = take(), take(), take(), take()
local kept = redis.call('HMGET', KEYS[1], 'owner', 'listed', 'expires')
if kept[1] and kept[1] ~= owner then return 0 end
redis.call('HSET', KEYS[1], 'owner', owner, 'body', body, 'listed', listed, 'expires', expires)
if kept[1] then
  redis.call('ZREM', KEYS[2], kept[2])
  redis.call('ZREM', KEYS[3], kept[3])
end
redis.call('ZADD', KEYS[2], 0, listed)
redis.call('ZADD', KEYS[3], 0, expires)
return 1
