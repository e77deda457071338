#!lua
-- Notes whether a user is signed in on a session; watchers hear of the first and of the last one.
--
-- KEYS: fence, users signed in on the session, online users
-- ARGV: publish command, topic, escaped app, user id, 1 if signed in
-- Returns -1 if the session is dead, 1 if the user came online, 2 if it went offline, otherwise 0.
local fence, signed_in, online = unpack(KEYS)
if redis.call('EXISTS', fence) == 1 then
  return -1
end
local publish, topic, app, user_id = unpack(ARGV)
local field = app .. '\n' .. user_id
if ARGV[5] == '1' then
  if redis.call('SADD', signed_in, field) == 1 and redis.call('HINCRBY', online, user_id, 1) == 1 then
    redis.call(publish, topic, 'o')
    return 1
  end
elseif redis.call('SREM', signed_in, field) == 1 and redis.call('HINCRBY', online, user_id, -1) <= 0 then
  redis.call('HDEL', online, user_id)
  redis.call(publish, topic, 'f')
  return 2
end
return 0
