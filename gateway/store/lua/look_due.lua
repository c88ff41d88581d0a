-- What may be claimed: what is due and free, and what somebody holds whose lease is over. KEYS: due, held, workers.
-- ARGV: who asks, how many of each at most.
local worker, limit = take(), take_number()
local abandoned, name = {}, ''
while #abandoned < limit do
  -- One step in the set for each holder, however much it holds.
  local first = redis.call('ZRANGEBYLEX', KEYS[2], name == '' and '-' or '[' .. name .. '\1', '+', 'LIMIT', 0, 1)[1]
  if not first then break end
  name = string.sub(first, 1, string.find(first, '\0', 1, true) - 1)
  local till = redis.call('ZSCORE', KEYS[3], name)
  if name ~= worker and not (till and tonumber(till) > now) then
    local held = redis.call(
      'ZRANGEBYLEX', KEYS[2], '[' .. name .. '\0', '(' .. name .. '\1', 'LIMIT', 0, limit - #abandoned
    )
    for _, holding in ipairs(held) do abandoned[#abandoned + 1] = string.sub(holding, #name + 2) end
  end
end
return {abandoned, redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, limit)}
