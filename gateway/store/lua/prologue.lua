-- ARGV[1]: the store's time in microseconds, 0 for the server's. ARGV[2]: after this moment of the server's nothing is
-- done any more, 0 for never. Whatever a script makes sure of it does before its first write: a script that stumbles
-- half-way is not rolled back.
local now, latest = tonumber(ARGV[1]), tonumber(ARGV[2])
if now == 0 or latest > 0 then
  local time = redis.call('TIME')
  local server = time[1] * 1000000 + time[2]
  if latest > 0 and server > latest then
    return redis.error_reply('LATE it would be done after its time')
  end
  if now == 0 then now = server end
end

local at = 2
local function take()
  at = at + 1
  return ARGV[at]
end
local function take_number() return tonumber(take()) end
-- A number as text with all its digits, of equal length: what is sorted by its bytes is sorted by time.
local function digits(number) return string.format('%016.0f', number) end
