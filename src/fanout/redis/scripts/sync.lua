#!lua
-- Makes what Redis has of one session and channel equal to what the session's node has: removals, then additions, then
-- the count. What is so already is not done again, so a call may be repeated.
--
-- KEYS: fence, counts of the session, members that the session holds, totals, members of the channel, then counts and
--       members of each session whose place it takes: its node's own, of before
-- ARGV: publish command, topic, escaped app, channel, count (-1: as it is), 1 if the count is announced, most members,
--       number of removed users, the removed, then user id and user_info of each added
-- Returns 0 if the session is dead, or {total, transition, version, refused users...}.
local fence, counts, held, totals, members = unpack(KEYS)
if redis.call('EXISTS', fence) == 1 then
  return 0
end
local publish, topic, channel = ARGV[1], ARGV[2], ARGV[4]
local field = ARGV[3] .. '\n' .. channel
local removals = tonumber(ARGV[8])
local messages = {}
local answer = {0, 0, 0}

local function call_with(command, key, arguments)
  if #arguments > 0 then
    return redis.call(command, key, unpack(arguments))
  end
end

-- What is compared with what the session gave last.
local function mark_of(info)
  return #info <= 40 and info or redis.sha1hex(info)
end

local function sync_members()
  -- The users of this call: who they are, what the session holds of them, and what the channel has.
  local ids, fields, columns = {}, {}, {''}
  local marks, holders, infos = {}, {}, {}
  local function add(id)
    if holders[id] == nil then
      holders[id] = 0
      ids[#ids + 1] = id
      fields[#fields + 1] = field .. '\n' .. id
      columns[#columns + 1] = id
    end
  end
  for i = 9, 8 + removals do
    add(ARGV[i])
  end
  for i = 9 + removals, #ARGV, 2 do
    add(ARGV[i])
  end
  local held_marks = redis.call('HMGET', held, unpack(fields))
  local entries = redis.call('HMGET', members, unpack(columns))
  for i, id in ipairs(ids) do
    marks[id] = held_marks[i]
    local entry = entries[i + 1]
    if entry then
      local colon = string.find(entry, ':', 1, true)
      holders[id] = tonumber(string.sub(entry, 1, colon - 1))
      infos[id] = string.sub(entry, colon + 1)
    end
  end
  local changed_marks, changed = {}, {}
  -- What a predecessor holds is held once.
  for i = 7, #KEYS, 2 do
    local their_marks = redis.call('HMGET', KEYS[i], unpack(fields))
    local taken_over = {}
    for j, id in ipairs(ids) do
      if their_marks[j] then
        taken_over[#taken_over + 1] = fields[j]
        if marks[id] then
          holders[id], changed[id] = holders[id] - 1, true
        else
          marks[id], changed_marks[id] = their_marks[j], true
        end
      end
    end
    call_with('HDEL', KEYS[i], taken_over)
  end
  local version = tonumber(entries[1])
  local size = version and redis.call('HLEN', members) - 1 or 0
  local is_new = not version
  if is_new then
    local now = redis.call('TIME')
    version = now[1] * 1000000 + now[2]
  end
  local function announce(kind, id, info)
    version = version + 1
    messages[#messages + 1] = string.format('%s%.0f:%d:', kind, version, #id) .. id .. info
  end

  for i = 9, 8 + removals do
    local id = ARGV[i]
    if marks[id] then
      marks[id], changed_marks[id], changed[id] = false, true, true
      holders[id] = holders[id] - 1
      if holders[id] <= 0 and infos[id] then
        infos[id] = nil
        size = size - 1
        announce('-', id, '')
      end
    end
  end
  for i = 9 + removals, #ARGV, 2 do
    local id, info = ARGV[i], ARGV[i + 1]
    local mark = mark_of(info)
    if not infos[id] then
      if size >= tonumber(ARGV[7]) then
        answer[#answer + 1] = id
      else
        size = size + 1
        marks[id], holders[id], infos[id] = mark, 1, info
        changed_marks[id], changed[id] = true, true
        announce('+', id, info)
      end
    elseif marks[id] ~= mark then
      if not marks[id] then
        holders[id] = holders[id] + 1
      end
      if infos[id] ~= info then
        infos[id] = info
        announce('i', id, info)
      end
      marks[id] = mark
      changed_marks[id], changed[id] = true, true
    end
  end

  local set, unset = {}, {}
  for i, id in ipairs(ids) do
    if changed_marks[id] then
      if marks[id] then
        set[#set + 1], set[#set + 2] = fields[i], marks[id]
      else
        unset[#unset + 1] = fields[i]
      end
    end
  end
  call_with('HDEL', held, unset)
  call_with('HSET', held, set)
  if size <= 0 then
    if not is_new then
      redis.call('DEL', members)
    end
    return 0
  end
  set, unset = {}, {}
  for _, id in ipairs(ids) do
    if changed[id] then
      if infos[id] then
        set[#set + 1], set[#set + 2] = id, string.format('%d:', holders[id]) .. infos[id]
      else
        unset[#unset + 1] = id
      end
    end
  end
  if #messages > 0 then
    set[#set + 1], set[#set + 2] = '', string.format('%.0f', version)
  end
  call_with('HDEL', members, unset)
  call_with('HSET', members, set)
  return version
end

if #ARGV > 8 then
  answer[3] = sync_members()
end

local count = tonumber(ARGV[5])
local before = redis.call('HGET', counts, field)
local had = before and tonumber(string.match(before, '%d+')) or 0
if count < 0 then
  count = had
else
  -- At once, so that the total does not count them twice for a while.
  for i = 6, #KEYS, 2 do
    local taken_over = redis.call('HGET', KEYS[i], field)
    if taken_over then
      redis.call('HDEL', KEYS[i], field)
      had = had + tonumber(string.match(taken_over, '%d+'))
    end
  end
end
local mine = string.format('%d', count) .. (ARGV[6] == '1' and '#' or '')
if count == 0 then
  if before then
    redis.call('HDEL', counts, field)
  end
elseif mine ~= before then
  redis.call('HSET', counts, field, mine)
end
local total
if count == had then
  total = tonumber(redis.call('HGET', totals, channel) or 0)
else
  total = redis.call('HINCRBY', totals, channel, string.format('%d', count - had))
  if total <= 0 then
    redis.call('HDEL', totals, channel)
    answer[2] = total - count + had > 0 and 2 or 0
    total = 0
  else
    answer[2] = total - count + had <= 0 and 1 or 0
    if ARGV[6] == '1' then
      messages[#messages + 1] = string.format('#%.0f', total)
    end
  end
end
answer[1] = total
for _, message in ipairs(messages) do
  redis.call(publish, topic, message)
end
return answer
