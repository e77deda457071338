#!lua flags=allow-oom
-- Removes some of what a dead session holds in one partition, and keeps the session from writing there. Each entry goes
-- together with what it stands for, so several nodes may reap one session, and one may stop in the middle.
--
-- KEYS: fence, counts of the session, members that it holds, users signed in on it
-- ARGV: publish command, tag of the partition, most entries, seconds that the fence stays
-- Returns {1 if nothing is left, members removed, channels vacated, users gone offline}.
local fence, counts, held, signed_in = unpack(KEYS)
local publish, tag, budget = ARGV[1], ARGV[2], tonumber(ARGV[3])
local removed, vacated, offline = 0, 0, 0
redis.call('SET', fence, '', 'EX', ARGV[4])

local entries = redis.call('HRANDFIELD', held, budget)
for _, entry in ipairs(entries) do
  local app, channel, id = string.match(entry, '^([^\n]*)\n([^\n]*)\n(.*)$')
  local members = tag .. 'u:' .. app .. ':' .. channel
  redis.call('HDEL', held, entry)
  local found = redis.call('HMGET', members, id, '')
  if found[1] then
    local colon = string.find(found[1], ':', 1, true)
    local holders = tonumber(string.sub(found[1], 1, colon - 1)) - 1
    if holders > 0 then
      redis.call('HSET', members, id, string.format('%d', holders) .. string.sub(found[1], colon))
    else
      local version = string.format('%.0f', tonumber(found[2] or 0) + 1)
      redis.call('HDEL', members, id)
      if redis.call('HLEN', members) <= 1 then
        redis.call('DEL', members)
      else
        redis.call('HSET', members, '', version)
      end
      removed = removed + 1
      redis.call(publish, tag .. 'c:' .. app .. ':' .. channel, string.format('-%s:%d:', version, #id) .. id)
    end
  end
end
budget = budget - #entries

if budget > 0 then
  entries = redis.call('HRANDFIELD', counts, budget, 'WITHVALUES')
  for i = 1, #entries, 2 do
    local app, channel = string.match(entries[i], '^([^\n]*)\n(.*)$')
    local count, is_announced = string.match(entries[i + 1], '^(%d+)(#?)')
    local totals = tag .. 't:' .. app
    redis.call('HDEL', counts, entries[i])
    local total = redis.call('HINCRBY', totals, channel, '-' .. count)
    if total <= 0 then
      redis.call('HDEL', totals, channel)
      vacated = vacated + 1
    elseif is_announced == '#' then
      redis.call(publish, tag .. 'c:' .. app .. ':' .. channel, string.format('#%.0f', total))
    end
  end
  budget = budget - #entries / 2
end

if budget > 0 then
  for _, entry in ipairs(redis.call('SPOP', signed_in, budget)) do
    local app, id = string.match(entry, '^([^\n]*)\n(.*)$')
    local online = tag .. 'o:' .. app
    if redis.call('HINCRBY', online, id, -1) <= 0 then
      redis.call('HDEL', online, id)
      offline = offline + 1
      redis.call(publish, tag .. 'w:' .. app .. ':' .. id, 'f')
    end
  end
end
local left = redis.call('EXISTS', counts, held, signed_in)
return {left == 0 and 1 or 0, removed, vacated, offline}
