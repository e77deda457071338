#!lua
-- Has all nodes close a user's connections. Those that are cut off find the number when they are back.
--
-- KEYS: number of the user's newest termination
-- ARGV: publish command, topic, seconds that the number is kept
-- Returns the number, which is larger than any before.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local number = string.format('%.0f', math.max(now, tonumber(redis.call('GET', KEYS[1]) or 0) + 1))
redis.call('SET', KEYS[1], number, 'EX', ARGV[3])
redis.call(ARGV[1], ARGV[2], 'T' .. number)
return number
