-- KEYS: the notes of a topic. ARGV: whose, for how long (microseconds), the note.
local worker, lasts, body, found = take(), take_number(), take(), {}
local kept = redis.call('HGETALL', KEYS[1])
for index = 1, #kept, 2 do
  if tonumber(string.sub(kept[index + 1], 1, 16)) <= now then
    redis.call('HDEL', KEYS[1], kept[index])
  elseif kept[index] ~= worker then
    found[#found + 1] = string.sub(kept[index + 1], 17)
  end
end
redis.call('HSET', KEYS[1], worker, digits(now + lasts) .. body)
return found
