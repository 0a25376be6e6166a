-- ARGV: nonce, token, lease in ms. KEYS: meta, tags, entry, lease.
-- Answers: granted, meta, the entry's version.
local granted = redis.call('SET', KEYS[4], ARGV[2], 'NX', 'PX', ARGV[3])
return { granted and 1 or 0, meta, string.sub(head_of(KEYS[3]), 4) }
