-- The format of what is kept. KEYS: a hash. ARGV: the writer's own, and the lowest that may write beside it. What a newer
-- one left stands, and one that asks for a newer writer is left as it is. Answers with what it found there: the format,
-- and what that asks for.
local own, least = take_number(), take_number()
local kept = redis.call('HMGET', KEYS[1], 'format', 'min_format')
local format = tonumber(kept[1] or own)
local asked = tonumber(kept[2] or kept[1] or least)
if format <= own and asked <= own then
  redis.call('HSET', KEYS[1], 'format', own, 'min_format', math.max(asked, least))
end
return {format, asked}
