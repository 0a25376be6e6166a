-- ARGV: a sequence number. KEYS: meta, log. Answers meta and what was logged after it, as far as it is there.
local meta = redis.call('GET', KEYS[1])
if not meta then return { '' } end
local behind = tonumber(string.sub(meta, 1, 20)) - tonumber(ARGV[1])
if behind <= 0 then return { meta } end
return { meta, unpack(redis.call('LRANGE', KEYS[2], -behind, -1)) }
