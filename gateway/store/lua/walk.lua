-- KEYS: everybody's list, what is searched by. ARGV: from where, to where, how many to look at, how many to find.
local upper, lower, most, limit = take(), take(), take_number(), take_number()
local members = redis.call('ZREVRANGEBYLEX', KEYS[1], upper, lower, 'LIMIT', 0, most)
if #members == 0 then return {'', 1} end
local ids, found, last = {}, {}, ''
for index, member in ipairs(members) do ids[index] = string.sub(member, 17) end
local lines = redis.call('HMGET', KEYS[2], unpack(ids))
for index, member in ipairs(members) do
  local is_wanted, _, of = wanted(ids[index], lines[index])
  last = member
  if is_wanted then
    found[#found + 1] = member
    found[#found + 1] = of
    if #found == 2 * limit then break end
  end
end
return {last, (last == members[#members] and #members < most) and 1 or 0, unpack(found)}
