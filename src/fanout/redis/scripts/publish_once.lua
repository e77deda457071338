-- Publishes an event unless one with the same idempotency key was published before.
--
-- KEYS: idempotency key [, cached event, channels with cached events]
-- ARGV: publish command, topic, message, fingerprint, milliseconds that the key is known
--       [, offset of what is cached in the message, milliseconds, channel, most entries]
-- Returns -1 if the key belongs to another event, -2 if the event was published before; otherwise 1 if it is kept, or 0.
local fingerprint = redis.call('GET', KEYS[1])
if fingerprint then
  return fingerprint == ARGV[4] and -2 or -1
end
redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
local is_kept = 0
if KEYS[2] then
  local value = string.sub(ARGV[3], tonumber(ARGV[6]) + 1)
  is_kept = cache(KEYS[2], KEYS[3], ARGV[8], value, ARGV[7], ARGV[9])
end
redis.call(ARGV[1], ARGV[2], ARGV[3])
return is_kept
