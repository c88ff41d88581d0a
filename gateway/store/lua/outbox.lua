-- The outbox is one set sorted by its bytes: host, zero, when it is due, prediction and sequence. Beside it stands when
-- the first of each host is due, so that hosts are passed over without a look at what waits for them.
local function entry(host, due, id, sequence)
  return host .. '\0' .. digits(due) .. id .. ':' .. string.format('%08.0f', sequence)
end
local function first_of(outbox, host, after)
  return redis.call('ZRANGEBYLEX', outbox, after, '(' .. host .. '\1', 'LIMIT', 0, 1)[1]
end
local function settle(outbox, hosts, host)
  local first = first_of(outbox, host, '[' .. host .. '\0')
  if first then
    redis.call('ZADD', hosts, string.sub(first, #host + 2, #host + 17), host)
  else
    redis.call('ZREM', hosts, host)
  end
end
