-- Keeps a channel's event for later subscribers, unless the app's part of this partition is full.
-- Returns 1 if it is kept.
local function cache(cached, channels, channel, value, ttl_ms, most)
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local is_new = redis.call('ZADD', channels, string.format('%.0f', now + tonumber(ttl_ms)), channel) == 1
  if is_new and redis.call('ZCARD', channels) > tonumber(most) then
    redis.call('ZREMRANGEBYSCORE', channels, '-inf', string.format('%.0f', now))
    if redis.call('ZCARD', channels) > tonumber(most) then
      redis.call('ZREM', channels, channel)
      return 0
    end
  end
  redis.call('SET', cached, value, 'PX', ttl_ms)
  redis.call('PEXPIRE', channels, ttl_ms)
  return 1
end
