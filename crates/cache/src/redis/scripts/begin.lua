-- Begins a partition's log if it has not begun, or if what is there is no log's. A log that begins anew knows no tags.
-- KEYS: meta, tags. ARGV: nonce.
local meta = redis.pcall('GET', KEYS[1])
local META = '^' .. string.rep('%d', 20) .. ' ' .. string.rep('%x', 16) .. ' ' .. string.rep('%d', 20) .. '$'
if type(meta) ~= 'string' or not string.find(meta, META) then
  local zero = string.rep('0', 20)
  meta = zero .. ' ' .. ARGV[1] .. ' ' .. zero
  redis.call('SET', KEYS[1], meta)
  redis.call('DEL', KEYS[2])
end
