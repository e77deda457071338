-- Where a stream stands, and which of its messages are within limits.
--
-- KEYS: log, streams, stream
-- ARGV: 1 to 5 as for appending, 6 oldest time in ms that counts, 7 most bytes; each may be empty
-- Returns the log; of a stream that is known also head, time, bytes, base, floor, first serial by time, first serial by
-- bytes, and generations.
local log = open_log()
local s = stand()
if not s then return {log.text} end
local floor = math.max(s.floor, s.first)
local by_time = ARGV[6] ~= '' and first_since(s, tonumber(ARGV[6])) or s.first
local by_bytes = ARGV[7] ~= '' and first_within(s, tonumber(ARGV[7])) or s.first
local part = {}
for i, one in ipairs(s.generations) do part[i] = digits(one[1]) .. ':' .. digits(one[2]) end
return {log.text, digits(s.head), digits(s.time), digits(s.total), digits(s.base), digits(floor), digits(by_time),
  digits(by_bytes), table.concat(part, ' ')}
