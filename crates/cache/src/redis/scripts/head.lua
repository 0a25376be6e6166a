-- The head of an entry up to its version: defines head_of(key). What is not of this format (another release's,
-- somebody else's, damaged) counts as evicted, and whoever stores next replaces it, whatever its type.
local HEAD = '^1[vbam][01]' .. string.rep('%d', 33)
local function head_of(key)
  local head = redis.pcall('GETRANGE', key, 0, 35)
  if type(head) ~= 'string' or not string.find(head, HEAD) then return '' end
  return string.sub(head, 1, 23)
end
