-- What a change of a prediction writes. KEYS[1] to KEYS[12] are these, pointers come last.
local PREDICTION, DUE, HELD, SEARCHED, MAYBES, AGING = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local EVENTS, LEDGER, DELIVERIES, WAITING, OUTBOX, HOSTS = KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12]
local ROW = {'request', 'state', 'deliveries', 'open', 'due', 'worker', 'fence', 'key', 'hash'}

-- Pointers: from a token to the prediction it is of. False if one of them leads elsewhere.
local pointers = {}
local function take_pointers(first)
  for index = 1, take_number() do
    local value = take()
    local kept = redis.call('GET', KEYS[first + index - 1])
    if kept and kept ~= value then return false end
    pointers[index] = value
  end
  return true
end
local function write_pointers(first)
  for index, value in ipairs(pointers) do redis.call('SET', KEYS[first + index - 1], value) end
end

-- Among those somebody holds, among those that wait for somebody, or in neither set. What is due at once waits in the
-- order in which it was made.
local function place(id, is_open, due, worker, number)
  local holding = worker .. '\0' .. id
  if is_open == '1' and worker ~= '' then
    redis.call('ZADD', HELD, 0, holding)
    redis.call('ZREM', DUE, id)
  elseif is_open == '1' then
    redis.call('ZADD', DUE, due == '0' and number or due, id)
  else
    redis.call('ZREM', DUE, id)
    if worker ~= '' then redis.call('ZREM', HELD, holding) end
  end
end

local function write_attempts()
  for _ = 1, take_number() do
    local number, token = take(), take()
    redis.call('HSET', PREDICTION, 'token:' .. number, token)
  end
end

local function write_events()
  for _ = 1, take_number() do redis.call('RPUSH', EVENTS, take()) end
end

-- A row begins with m if it says maybe.
local function write_ledger(listed)
  local count = take_number()
  if count == 0 then return end
  local maybes = tonumber(redis.call('HGET', PREDICTION, 'maybes') or 0)
  for _ = 1, count do
    local attempt, row = take(), take()
    local before = redis.call('HGET', LEDGER, attempt)
    if before and string.sub(before, 1, 1) == 'm' then maybes = maybes - 1 end
    if string.sub(row, 1, 1) == 'm' then maybes = maybes + 1 end
    redis.call('HSET', LEDGER, attempt, row)
  end
  redis.call('HSET', PREDICTION, 'maybes', maybes)
  if maybes > 0 then
    redis.call('ZADD', MAYBES, 0, listed)
  else
    redis.call('ZREM', MAYBES, listed)
  end
end

local function supersede(id, host)
  for _, sequence in ipairs(redis.call('SMEMBERS', WAITING)) do
    local kept = redis.call('HMGET', DELIVERIES, sequence .. ':event', sequence .. ':due')
    if kept[1] ~= 'completed' then
      redis.call('ZREM', OUTBOX, entry(host, kept[2], id, sequence))
      redis.call('SREM', WAITING, sequence)
      redis.call('HSET', DELIVERIES, sequence .. ':ended', 'superseded')
    end
  end
end

-- Of what is spaced the newest takes in what comes after it, unless somebody has claimed it: then its bytes may have
-- been sent already.
local function write_deliveries(id, next_sequence)
  local count = take_number()
  if count == 0 then return next_sequence end
  local owner, url, host, body, spacing = take(), take(), take(), take(), take_number()
  redis.call('HSET', DELIVERIES, 'owner', owner, 'url', url, 'host', host)
  for _ = 1, count do
    local event, is_spaced = take(), take()
    local last = is_spaced == '1' and redis.call('HGET', DELIVERIES, 'last:' .. event)
    local due, is_folded = now, false
    if last then
      local kept = redis.call('HMGET', DELIVERIES, last .. ':slot', last .. ':ended', last .. ':fence')
      is_folded = not kept[2] and not kept[3]
      due = math.max(now, kept[1] + spacing)
    end
    if is_folded then
      redis.call('HSET', DELIVERIES, last .. ':body', body)
    else
      if event == 'completed' then supersede(id, host) end
      local sequence = string.format('%.0f', next_sequence)
      redis.call(
        'HSET', DELIVERIES, 'last:' .. event, sequence, sequence .. ':event', event, sequence .. ':body', body,
        sequence .. ':made', now, sequence .. ':slot', due, sequence .. ':due', due
      )
      redis.call('SADD', WAITING, sequence)
      redis.call('ZADD', OUTBOX, 0, entry(host, due, id, sequence))
      next_sequence = next_sequence + 1
    end
  end
  settle(OUTBOX, HOSTS, host)
  return next_sequence
end

-- It ages from its end on, unless a delivery of it is under way: then from the end of that one.
local function write_age(aged, before)
  if before and before ~= '' and before ~= aged then redis.call('ZREM', AGING, before) end
  if aged == '' then
    if before then redis.call('HSET', PREDICTION, 'aged', '') end
    return
  end
  if aged ~= before then redis.call('HSET', PREDICTION, 'aged', aged) end
  if redis.call('SCARD', WAITING) == 0 then
    redis.call('ZADD', AGING, 0, aged)
  else
    redis.call('ZREM', AGING, aged)
  end
end

-- The last event says that it is done, and so it begins with d. What is under way keeps its bytes until it ends.
local function erase(request, deliveries)
  redis.call('HSET', PREDICTION, 'request', request, 'erased', 1)
  local last = redis.call('LINDEX', EVENTS, -1)
  if last and string.sub(last, 1, 1) == 'd' then
    redis.call('LTRIM', EVENTS, -1, -1)
  else
    redis.call('DEL', EVENTS)
  end
  for sequence = 0, deliveries - 1 do
    local name = string.format('%.0f', sequence)
    if redis.call('SISMEMBER', WAITING, name) == 0 then redis.call('HSET', DELIVERIES, name .. ':body', '') end
  end
end
