-- Begins a partition's log if it has not begun. A log that begins anew knows no tags.
-- KEYS: meta, tags. ARGV: nonce.
local meta = redis.call('GET', KEYS[1])
if not meta then
  local zero = string.rep('0', 20)
  meta = zero .. ' ' .. ARGV[1] .. ' ' .. zero
  redis.call('SET', KEYS[1], meta)
  redis.call('DEL', KEYS[2])
end
