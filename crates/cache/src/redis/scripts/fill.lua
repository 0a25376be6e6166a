-- ARGV: token, version, kind, tail, ttl in ms. KEYS: entry, lease.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
local head = head_of(KEYS[1])
local held = string.sub(head, 4)
if held > ARGV[2] then return 0 end
local logged = '0'
if held == ARGV[2] then logged = string.sub(head, 3, 3) end
local time = redis.call('TIME')
local stamp = string.format('%013.0f', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('SET', KEYS[1], '1' .. ARGV[3] .. logged .. ARGV[2] .. stamp .. ARGV[4], 'PX', ARGV[5])
redis.call('DEL', KEYS[2])
return 1
