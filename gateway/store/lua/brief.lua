-- States of predictions, and their requests where they are not too long. KEYS: the predictions. ARGV: what is too long.
local most, found = take_number(), {}
for index, key in ipairs(KEYS) do
  local request = redis.call('HSTRLEN', key, 'request') <= most and 'request' or ''
  found[index] = redis.call('HMGET', key, request, 'state', 'deliveries')
end
return found
