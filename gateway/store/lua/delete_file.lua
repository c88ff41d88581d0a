-- KEYS as in put_file. ARGV: the owner, 1 if only once its time is over.
local owner, is_late = take(), take()
local kept = redis.call('HMGET', KEYS[1], 'owner', 'body', 'listed', 'expires')
if kept[1] ~= owner then return false end
if is_late == '1' and tonumber(string.sub(kept[4], 1, 16)) > now then return false end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], kept[3])
redis.call('ZREM', KEYS[3], kept[4])
return kept[2]
