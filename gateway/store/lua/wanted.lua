-- What is searched by, in one line for each prediction: when it was made, whether it was rescued, status, owner, model,
-- providers. ARGV: each condition, empty if it is not asked for.
local statuses, model, owner, provider, prefix, is_rescued = take(), take(), take(), take(), take(), take()
local function wanted(id, line)
  if not line then return false end
  local listed, rescued, status, own, of, providers =
    string.match(line, '^(................)(.)([^\n]*)\n([^\n]*)\n([^\n]*)\n(.*)$')
  if not listed then return false end
  if is_rescued == '1' and rescued ~= '1' then return false end
  if statuses ~= '' and not string.find(statuses, ' ' .. status .. ' ', 1, true) then return false end
  if owner ~= '' and own ~= owner then return false end
  if model ~= '' and of ~= model then return false end
  if provider ~= '' and not string.find(providers, ' ' .. provider .. ' ', 1, true) then return false end
  if prefix ~= '' and string.sub(id, 1, #prefix) ~= prefix then return false end
  return true, listed, of
end
