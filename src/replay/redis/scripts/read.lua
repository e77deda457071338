-- Reads messages of a stream.
--
-- KEYS: log, streams, stream
-- ARGV: 1 to 5 as for appending, 6 serial before the first, 7 serial after the last, 8 `f` for oldest first, else newest
--       first, 9 most messages, 10 most bytes, unless the first is larger
-- Returns the log, the generations, and the entries.
local log = open_log()
local s = stand()
if not s then return {log.text, '', {}} end
local part = {}
for i, one in ipairs(s.generations) do part[i] = digits(one[1]) .. ':' .. digits(one[2]) end
local low = math.max(tonumber(ARGV[6]) + 1, s.floor, s.first)
local high = math.min(tonumber(ARGV[7]) - 1, s.head)
local left, bytes, entries = tonumber(ARGV[9]), tonumber(ARGV[10]), {}
while low <= high and left > 0 do
  local found
  if ARGV[8] == 'f' then
    found = redis.call('XRANGE', KEYS[3], id_of(s, low), id_of(s, high), 'COUNT', math.min(left, 32))
  else
    found = redis.call('XREVRANGE', KEYS[3], id_of(s, high), id_of(s, low), 'COUNT', math.min(left, 32))
  end
  if #found == 0 then break end
  for _, entry in ipairs(found) do
    bytes = bytes - size_of(entry[2])
    if bytes < 0 and #entries > 0 then
      left = 0
      break
    end
    entries[#entries + 1] = entry
    left = left - 1
    local _, serial = parts_of(entry[1])
    if ARGV[8] == 'f' then low = serial + 1 else high = serial - 1 end
  end
end
return {log.text, table.concat(part, ' '), entries}
