-- What may be claimed of the outbox, the first due first. KEYS: outbox, hosts. ARGV: how many, hosts to pass over.
local limit, count, excluded = take_number(), take_number(), {}
for _ = 1, count do excluded[take()] = true end
local heads, found = {}, {}
for _, host in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, limit + count)) do
  if not excluded[host] and #heads < limit then
    heads[#heads + 1] = {host, first_of(KEYS[1], host, '[' .. host .. '\0')}
  end
end
local function due_of(head) return tonumber(string.sub(head[2], #head[1] + 2, #head[1] + 17)) end
while #found < 2 * limit and #heads > 0 do
  local first, due = 1, due_of(heads[1])
  for index = 2, #heads do
    local other = due_of(heads[index])
    if other < due then first, due = index, other end
  end
  local head = heads[first]
  if due > now then break end
  found[#found + 1] = head[1]
  found[#found + 1] = string.sub(head[2], #head[1] + 2)
  head[2] = first_of(KEYS[1], head[1], '(' .. head[2])
  if not head[2] then table.remove(heads, first) end
end
return found
