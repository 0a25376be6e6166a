-- Logs and tells a change: defines log(what), which answers the position before it and its sequence number.
-- KEYS[1] is the meta key; the nonce is ARGV[1].
local function log(list, channel, publish, keep, mark, what)
  local before = string.sub(meta, 22, 37)
  local seq = string.format('%020.0f', tonumber(string.sub(meta, 1, 20)) + 1)
  local known = string.sub(meta, 39, 58)
  if mark > known then known = mark end
  redis.call('SET', KEYS[1], seq .. ' ' .. ARGV[1] .. ' ' .. known)
  local entry = seq .. ' ' .. ARGV[1] .. ' ' .. before .. ' ' .. what
  redis.call('RPUSH', list, entry)
  redis.call('LTRIM', list, -tonumber(keep), -1)
  redis.call(publish, channel, entry)
  return entry
end
