-- Rows of budgets. KEYS[1] to KEYS[5] are these: counters with what they have come to, counters by the end of their
-- window, reservations, the open ones and the settled ones by their time. Numbers stay below 2^53.
local SPENDING, WINDOWS, RESERVATIONS, OPEN, SETTLED = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local function whole(number) return string.format('%.0f', number) end
local function words_of(row)
  local words = {}
  for word in string.gmatch(row, '%S+') do words[#words + 1] = word end
  return words
end

-- What a counter has come to; nil: nothing is kept of it.
local function read_spending(counter)
  local row = redis.call('HGET', SPENDING, counter)
  if not row then return nil end
  local words = words_of(row)
  return {
    ends = tonumber(words[1]), limit = tonumber(words[2]), settled = tonumber(words[3]),
    reserved = tonumber(words[4]), open = tonumber(words[5]),
  }
end
local function write_spending(counter, spent)
  local numbers = {spent.ends, spent.limit, spent.settled, spent.reserved, spent.open}
  for index, number in ipairs(numbers) do numbers[index] = whole(number) end
  redis.call('HSET', SPENDING, counter, table.concat(numbers, ' '))
  redis.call('ZADD', WINDOWS, spent.ends, counter)
end
local function add(counters, settled, reserved, opened)
  for _, counter in ipairs(counters) do
    local spent = read_spending(counter)
    if spent then
      spent.settled, spent.reserved, spent.open = spent.settled + settled, spent.reserved + reserved, spent.open + opened
      write_spending(counter, spent)
    end
  end
end

-- A row: o or s, nanos, when, fence, revision, and its counters.
local function read_reservation(id)
  local row = redis.call('HGET', RESERVATIONS, id)
  if not row then return nil end
  local words = words_of(row)
  local kept = {
    is_open = words[1] == 'o', nanos = tonumber(words[2]), at = tonumber(words[3]), fence = tonumber(words[4]),
    revision = tonumber(words[5]), counters = {}, is_on = {},
  }
  for index = 6, #words do
    kept.counters[index - 5] = words[index]
    kept.is_on[words[index]] = true
  end
  return kept
end
local function write_reservation(id, before, row)
  if before then redis.call('ZREM', before.is_open and OPEN or SETTLED, digits(before.at) .. id) end
  redis.call('ZADD', row.is_open and OPEN or SETTLED, 0, digits(row.at) .. id)
  local words = {row.is_open and 'o' or 's', whole(row.nanos), whole(row.at), whole(row.fence), whole(row.revision)}
  redis.call('HSET', RESERVATIONS, id, table.concat(words, ' ') .. ' ' .. table.concat(row.counters, ' '))
end
