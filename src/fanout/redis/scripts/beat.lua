#!lua
-- Renews a session's lease, and takes note of the sessions whose lease is over.
--
-- KEYS: nodes, dead sessions, connections of the session, then of each of its predecessors
-- ARGV: session, milliseconds of its lease, 1 to register it, number of predecessors, their names, then app and
--       connections of each app
-- Returns {1 if the session lives, 0 if it is dead, -1 if it is not known; sessions that died just now; sessions that
-- were dead before}.
local nodes, dead, connections = unpack(KEYS)
local session = ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local is_dead = redis.call('SISMEMBER', dead, session) == 1
local is_alive = not is_dead and (ARGV[3] == '1' or redis.call('ZSCORE', nodes, session) ~= false)
local predecessors = tonumber(ARGV[4])
local unfinished = redis.call('SMEMBERS', dead)
-- When nobody has renewed a lease for half of one, Redis itself was away: it cannot say who is dead. All get another.
local lease = tonumber(ARGV[2])
local newest = redis.call('ZRANGE', nodes, -1, -1, 'WITHSCORES')[2]
if newest and now - (tonumber(newest) - lease) > lease / 2 then
  for _, other in ipairs(redis.call('ZRANGE', nodes, 0, -1)) do
    redis.call('ZADD', nodes, string.format('%.0f', now + lease), other)
  end
end
if is_alive then
  redis.call('ZADD', nodes, string.format('%.0f', now + lease), session)
  redis.call('DEL', connections)
  -- Lua passes some thousand arguments at most.
  for i = 5 + predecessors, #ARGV, 1000 do
    redis.call('HSET', connections, unpack(ARGV, i, math.min(i + 999, #ARGV)))
  end
end
-- What is still told under a predecessor holds until it is told under this one. Its connections are counted here.
for i = 1, predecessors do
  redis.call('ZADD', nodes, 'XX', string.format('%.0f', now + lease), ARGV[4 + i])
  redis.call('DEL', KEYS[3 + i])
end
local expired = redis.call('ZRANGE', nodes, '-inf', string.format('%.0f', now), 'BYSCORE', 'LIMIT', 0, 100)
for _, other in ipairs(expired) do
  redis.call('SADD', dead, other)
  redis.call('ZREM', nodes, other)
end
return {is_alive and 1 or is_dead and 0 or -1, expired, unfinished}
