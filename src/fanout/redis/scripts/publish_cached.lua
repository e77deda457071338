-- Publishes an event of a cache channel, and keeps it.
--
-- KEYS: cached event, channels with cached events
-- ARGV: publish command, topic, message, offset of what is cached in the message, milliseconds, channel, most entries
-- Returns 1 if it is kept.
local value = string.sub(ARGV[3], tonumber(ARGV[4]) + 1)
local is_kept = cache(KEYS[1], KEYS[2], ARGV[6], value, ARGV[5], ARGV[7])
redis.call(ARGV[1], ARGV[2], ARGV[3])
return is_kept
