-- A stream: its entries, and what is written down of it in the partition's hash of streams:
-- `<head> <time> <bytes> <base> <floor> <generation>:<first serial>..`. There the head may be up to 63 behind, and is
-- exact when the stream is empty.
local ROUND = 64
local MAX_GENERATIONS = 64

local function round_of(serial)
  return math.floor(serial / ROUND)
end

local function save(s)
  local part = {digits(s.head), digits(s.time), digits(s.total), digits(s.base), digits(s.floor)}
  for _, one in ipairs(s.generations) do part[#part + 1] = digits(one[1]) .. ':' .. digits(one[2]) end
  redis.call('HSET', KEYS[2], ARGV[5], table.concat(part, ' '))
end

local function saved()
  local text = redis.call('HGET', KEYS[2], ARGV[5])
  if not text then return nil end
  local part = words(text)
  local s = {head = tonumber(part[1]), time = tonumber(part[2]), total = tonumber(part[3]),
    base = tonumber(part[4]), floor = tonumber(part[5]), generations = {}}
  for i = 6, #part do
    local number, start = string.match(part[i], '^(%d+):(%d+)$')
    s.generations[i - 5] = {tonumber(number), tonumber(start)}
  end
  return s
end

local function parts_of(id)
  local generation, serial = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(generation), tonumber(serial)
end

-- As `Content::size` counts. The first fields are time and bytes before.
local function size_of(fields)
  local size = 32
  for i = 5, #fields, 2 do
    if fields[i] ~= 'x' then size = size + #fields[i + 1] end
  end
  return size
end

-- Nothing if nobody has published to the stream.
local function stand()
  local s = saved()
  local info = redis.pcall('XINFO', 'STREAM', KEYS[3])
  if info.err then
    if not s then return nil end
    -- Redis has dropped it. It goes on behind every serial that it may have given out.
    s.head = (round_of(s.head) + 1) * ROUND
    s.base, s.floor, s.first, s.generations, s.is_gone = s.head, s.head + 1, s.head + 1, {}, true
    return s
  end
  local field = {}
  for i = 1, #info, 2 do field[info[i]] = info[i + 1] end
  local generation, head = parts_of(field['last-generated-id'])
  s = s or {time = 0, total = 0, base = head, floor = head + 1, generations = {}}
  s.generation, s.head, s.first = generation, head, head + 1
  local first, last = field['first-entry'], field['last-entry']
  if last then
    s.time, s.total = tonumber(last[2][2]), tonumber(last[2][4]) + size_of(last[2])
  end
  if first then
    local _, serial = parts_of(first[1])
    s.first, s.first_time, s.before_first = serial, tonumber(first[2][2]), tonumber(first[2][4])
  end
  return s
end

-- One that nobody has published to.
local function new_stream(log)
  return {head = log.base, time = tonumber(ARGV[2]), total = 0, base = log.base, floor = log.base + 1,
    first = log.base + 1, generations = {}}
end

-- Whether a generation begins with the serial after the head.
local function enter_generation(s, log)
  -- The log was lost, and the stream was not.
  if s.generation and s.generation > log.generation then
    log.generation = s.generation + 1
    save_log(log)
  end
  local last = s.generations[#s.generations]
  if last and last[1] >= log.generation then return false end
  table.insert(s.generations, {log.generation, s.head + 1})
  if #s.generations > MAX_GENERATIONS then
    table.remove(s.generations, 1)
    s.floor = math.max(s.floor, s.generations[1][2])
  end
  return true
end

local function id_of(s, serial)
  local number = s.generations[1] and s.generations[1][1] or s.generation
  for _, one in ipairs(s.generations) do
    if one[2] <= serial then number = one[1] end
  end
  return digits(number) .. '-' .. digits(serial)
end

-- The first serial whose entry is kept, as are all later ones; head + 1 if there is none.
local function first_kept(s, is_kept)
  local low, high = s.first, s.head + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    local entry = redis.call('XRANGE', KEYS[3], id_of(s, middle), '+', 'COUNT', 1)[1]
    if entry and is_kept(entry[2]) then high = middle else low = middle + 1 end
  end
  return low
end

local function first_since(s, since)
  if s.first > s.head or s.first_time >= since then return s.first end
  return first_kept(s, function(fields) return tonumber(fields[2]) >= since end)
end

-- The newest is within the limit whatever its size.
local function first_within(s, max_bytes)
  local beyond = s.total - max_bytes
  if s.first > s.head or s.before_first >= beyond then return s.first end
  return math.min(first_kept(s, function(fields) return tonumber(fields[4]) >= beyond end), s.head)
end

-- Drops what is out of every limit; the newest stays, as it says where the stream stands.
local function tidy(s, window, max_bytes, expire)
  redis.call('PEXPIRE', KEYS[3], expire)
  local floor = math.max(s.floor, first_since(s, tonumber(ARGV[2]) - window))
  if max_bytes > 0 then floor = math.max(floor, first_within(s, max_bytes)) end
  floor = math.min(floor, s.head)
  if floor <= s.first then return end
  redis.call('XTRIM', KEYS[3], 'MINID', '=', id_of(s, floor))
end
