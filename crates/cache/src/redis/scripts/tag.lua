-- ARGV: nonce, tag. KEYS: meta, tags. Answers the position that is the tag's generation.
local generation = redis.call('HGET', KEYS[2], ARGV[2])
if not generation then
  generation = string.sub(meta, 1, 37)
  redis.call('HSET', KEYS[2], ARGV[2], generation)
end
return generation
