-- What a worker holds. KEYS: held. ARGV: the worker, how many at most.
local worker, limit, ids = take(), take_number(), {}
local held = redis.call('ZRANGEBYLEX', KEYS[1], '[' .. worker .. '\0', '(' .. worker .. '\1', 'LIMIT', 0, limit)
for index, holding in ipairs(held) do ids[index] = string.sub(holding, #worker + 2) end
return ids
