-- ARGV: nonce, version, mark, kind, tail, ttl in ms, log length, PUBLISH or SPUBLISH, channel, what to log.
-- KEYS: meta, tags, entry, lease, log. Answers: 0 and the higher version; or 1, what was logged, whether it was kept.
local head = head_of(KEYS[3])
local held = string.sub(head, 4)
if held > ARGV[2] then return { 0, held, 0 } end
redis.call('DEL', KEYS[4])
local kind, tail = ARGV[4], ARGV[5]
local kept = 1
-- A marker may itself have come late, after what was newer was evicted.
local nothing = held == '' or string.sub(head, 2, 2) == 'm'
if nothing and ARGV[3] < string.sub(meta, 39, 58) then
  kind, tail = 'm', ''
end
if kind == 'm' then kept = 0 end
local same = held == ARGV[2]
if same and kind == 'm' then
  -- What is there in this very version is more than a marker.
  redis.call('SETRANGE', KEYS[3], 2, '1')
else
  local time = redis.call('TIME')
  local stamp = string.format('%013.0f', time[1] * 1000 + math.floor(time[2] / 1000))
  redis.call('SET', KEYS[3], '1' .. kind .. '1' .. ARGV[2] .. stamp .. tail, 'PX', ARGV[6])
end
if same and string.sub(head, 3, 3) == '1' then return { 1, '', kept } end
return { 1, log(KEYS[5], ARGV[9], ARGV[8], ARGV[7], ARGV[3], ARGV[10]), kept }
