-- KEYS: the deliveries of predictions.
local found = {}
for index, key in ipairs(KEYS) do found[index] = redis.call('HGET', key, 'owner') end
return found
