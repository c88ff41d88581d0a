-- Windows that ended before a moment, and reservations that were settled before it. ARGV: the moment, how many of each.
local before, limit, forgotten = take_number(), take_number(), 0
for _, counter in ipairs(redis.call('ZRANGEBYSCORE', WINDOWS, '-inf', '(' .. whole(before), 'LIMIT', 0, limit)) do
  local spent = read_spending(counter)
  if not spent or spent.open == 0 then
    redis.call('HDEL', SPENDING, counter)
    redis.call('ZREM', WINDOWS, counter)
    forgotten = forgotten + 1
  end
end
for _, entry in ipairs(redis.call('ZRANGEBYLEX', SETTLED, '-', '(' .. digits(before), 'LIMIT', 0, limit)) do
  redis.call('HDEL', RESERVATIONS, string.sub(entry, 17))
  redis.call('ZREM', SETTLED, entry)
  forgotten = forgotten + 1
end
return forgotten
