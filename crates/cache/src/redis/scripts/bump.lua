-- ARGV: nonce, tag, log length, PUBLISH or SPUBLISH, channel, what to log. KEYS: meta, tags, log.
local entry = log(KEYS[3], ARGV[5], ARGV[4], ARGV[3], '', ARGV[6])
redis.call('HSET', KEYS[2], ARGV[2], string.sub(entry, 1, 37))
return entry
