-- What may be claimed of the outbox, the first due first; then what is due of each host that is to be looked through by
-- whoever asks. KEYS: outbox, hosts. ARGV: how many, how many of all those hosts; and each with the entry to go on after.
local limit, most, count = take_number(), take_number(), take_number()
local hosts, afters, shared = {}, {}, {}
for index = 1, count do
  hosts[index], afters[index] = take(), take()
  shared[hosts[index]] = true
end
local heads, found = {}, {}
for _, host in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, limit + count)) do
  if not shared[host] and #heads < limit then
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
local walked = {}
for index, host in ipairs(hosts) do
  local after = '[' .. host .. '\0'
  if afters[index] ~= '' then after = '(' .. host .. '\0' .. afters[index] end
  walked[index] = redis.call('ZRANGEBYLEX', KEYS[1], after, '(' .. host .. '\0' .. digits(now + 1), 'LIMIT', 0, most)
  most = most - #walked[index]
end
return {found, walked}
