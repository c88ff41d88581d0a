-- KEYS: the ids, what is searched by. ARGV: how many to look at. The first answer is 0 if there are more.
local most = take_number()
local ids = redis.call('ZRANGEBYLEX', KEYS[1], '[' .. prefix, '(' .. prefix .. '~', 'LIMIT', 0, most + 1)
if #ids > most then return {0} end
local found = {1}
if #ids == 0 then return found end
for index, line in ipairs(redis.call('HMGET', KEYS[2], unpack(ids))) do
  local is_wanted, listed, of = wanted(ids[index], line)
  if is_wanted then
    found[#found + 1] = listed .. ids[index]
    found[#found + 1] = of
  end
end
return found
