#!lua flags=no-writes
-- Connections of an app, of the sessions that live.
--
-- KEYS: nodes
-- ARGV: what the names of the sessions' connections begin with, app
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local total = 0
for _, session in ipairs(redis.call('ZRANGE', KEYS[1], '(' .. string.format('%.0f', now), '+inf', 'BYSCORE')) do
  total = total + tonumber(redis.call('HGET', ARGV[1] .. session, ARGV[2]) or 0)
end
return total
